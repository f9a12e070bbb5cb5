"""Text of Debian's package descriptions, which need no hub.

Terms: a description is part of its package, and a translation a work derived from it (the Debian
Description Translation Project names no licence of its own). Packages of the component `main`, the
only ones taken, are free under the Debian Free Software Guidelines, each under the licence that its
`debian/copyright` states. They are fetched from the mirror that this machine's apt uses and are no
part of this project; models that are trained on them are works of many authors.
"""
