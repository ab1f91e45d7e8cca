"""What is wrong with one field beside others: only the whole request shows it, and one field is to be corrected."""

from __future__ import annotations


class FieldError(ValueError):
    """A value does not go with the rest of the request.

    Attributes:
        place: Path of the field from the model that found it, such as `("budget", "latency")`.
    """

    def __init__(self, place: tuple[int | str, ...], message: str) -> None:
        """Name the field.

        Args:
            place: Its path.
            message: What is wrong and what to do, without a full stop.
        """
        super().__init__(message)
        self.place = place
