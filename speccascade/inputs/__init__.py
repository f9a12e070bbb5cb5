"""What comes from outside, read with care: each mistake is one line that says what and where.

text_files.py    lines, JSON, JSON lines, Parquet; plain_text.py what counts as a text
fields.py        fields of other programs' files, by type; field_types.py the types
gguf_header.py   the header of a GGUF file
paths.py         paths; values.py whole numbers and others
"""
