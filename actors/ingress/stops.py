"""Stop strings in a stream of text that arrives in pieces. It knows no tokens."""

from __future__ import annotations


class StopMatcher:
    """Cuts a stream of text before the stop string that is complete first.

    Works character by character (Knuth-Morris-Pratt), so the cut does not depend on how the
    text was split. Text that may be the start of a stop string is held back.
    """

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = [(stop, _borders(stop)) for stop in stops]
        self._matched_len = [0] * len(stops)
        self._held = ""
        self.matched = False

    def push(self, text: str) -> str:
        """The part of the text so far that is now certain to be shown. Not after a match."""
        assert not self.matched
        if not self._stops:
            return text
        known = len(self._held)
        self._held += text
        for end in range(known, len(self._held)):
            longest = self._advance(self._held[end])
            if longest:
                self.matched = True
                shown, self._held = self._held[: end + 1 - longest], ""
                return shown
        cut = len(self._held) - max(self._matched_len)
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown

    def flush(self) -> str:
        """What is still held, now that no text follows."""
        shown, self._held = self._held, ""
        return shown

    def _advance(self, char: str) -> int:
        """Take one character; the length of the longest stop string that it completes, or 0."""
        longest = 0
        for index, (stop, borders) in enumerate(self._stops):
            length = self._matched_len[index]
            while length and stop[length] != char:
                length = borders[length - 1]
            length += stop[length] == char
            self._matched_len[index] = length
            if length == len(stop):
                longest = max(longest, length)
        return longest


def _borders(stop: str) -> list[int]:
    """For each prefix of `stop`, the length of its longest proper prefix that is a suffix."""
    borders = [0] * len(stop)
    length = 0
    for index in range(1, len(stop)):
        while length and stop[index] != stop[length]:
            length = borders[length - 1]
        length += stop[index] == stop[length]
        borders[index] = length
    return borders
