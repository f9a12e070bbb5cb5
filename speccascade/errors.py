"""The one exception for mistakes that a user can mend."""


class UserError(Exception):
    """Bad input. The message is one line that says what is wrong and what to change."""
