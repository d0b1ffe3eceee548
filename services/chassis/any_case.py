"""Text in capitals and small letters."""

import re


def in_any_case(text: str) -> str:
    """A regular expression for the text in capitals and small letters.

    A letter is found in its other form where each of them is one letter, and they are a pair wherever one writes: so
    the Turkish İ is no i, and ß is not SS. LIKE and lower() of both engines know the letters of ASCII alone,
    PostgreSQL's in some locales more.
    """
    return "".join(f"[{''.join(sorted(cases))}]" if len(cases := _cases(one)) > 1 else re.escape(one) for one in text)


def _cases(letter: str) -> set[str]:
    forms = {letter, letter.lower(), letter.upper()}
    return {form for form in forms if len(form) == 1 and form.casefold() == letter.casefold()}
