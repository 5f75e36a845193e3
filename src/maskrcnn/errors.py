"""The one error that a user sees: a sentence with the value and the place, and a hint for what to do."""


class UserError(Exception):
    """Something the user must change. The command line prints it as `error:` and `hint:` and exits with
    code 2.

    message: one sentence that names the offending value and where it stands.
    hint: one action, "" when the message already says it.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
