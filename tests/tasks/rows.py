"""A row of each benchmark, with the columns that the hub has."""

ROWS = {
    "xsum": {"document": "A dog bit a man in Ulm.", "summary": "Dog bites man in Ulm.", "id": "7"},
    "cnn_dailymail": {
        "article": "It rained.",
        "highlights": "Rain fell .\nIt was wet .",
        "id": "7",
    },
    "gsm8k": {"question": "Two and two?", "answer": "2+2=<<2+2=4>>4\n#### 4"},
    "squad": {
        "id": "x",
        "title": "T",
        "context": "Ulm lies on the Danube.",
        "question": "Where is Ulm?",
        "answers": {"text": ["on the Danube", "Danube"], "answer_start": [9, 16]},
    },
    "web_questions": {"url": "u", "question": "who is he?", "answers": ["Bob", "Robert"]},
    "natural_questions": {"question": "who is he", "answer": ["Bob", "Robert"]},
    "trivia_qa": {
        "question": "Who is he?",
        "question_id": "q",
        "answer": {
            "value": "Bob",
            "aliases": ["Bob", "Robert"],
            "normalized_aliases": ["bob", "robert"],
        },
    },
    "wmt14": {"translation": {"en": "A house.", "de": "Ein Haus."}},
    "mbpp": {
        "task_id": 601,
        "text": "Write a function to add two numbers.",
        "code": "def add(a, b):\r\n    return a + b",
        "test_list": ["assert add(1, 2) == 3", "assert add(0, C) == C"],
        "test_setup_code": "C = 5",
        "challenge_test_list": [],
    },
}


def numbered(row, number):
    """Returns a row of another question."""
    if "translation" in row:
        languages = row["translation"].items()
        return {**row, "translation": {k: f"{text} ({number})" for k, text in languages}}
    first = next(k for k in ("document", "article", "question", "text") if k in row)
    return {**row, first: f"{row[first]} ({number})"}
