"""Text in capitals and small letters."""

import re


def in_any_case(text: str) -> str:
    """A regular expression for the text in capitals and small letters.

    LIKE and lower() of both engines know the letters of ASCII alone, PostgreSQL's in some locales more.
    """
    return "".join(f"[{''.join(sorted(cases))}]" if len(cases := _cases(one)) > 1 else re.escape(one) for one in text)


def _cases(letter: str) -> set[str]:
    return {case for case in (letter, letter.lower(), letter.upper()) if len(case) == 1}
