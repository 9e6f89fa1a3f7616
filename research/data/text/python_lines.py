"""Which lines of a text are Python."""

import io
import token
import tokenize


def whole_lines(text: str) -> list[str]:
    """Returns the lines of a passage that begin and end in it and are not blank, without their indentation.

    The first and the last may be parts of lines; indentation says nothing about a line on its own.
    """
    return [line.strip() for line in text.split('\n')[1:-1] if line.strip()]


def is_python_line(line: str) -> bool:
    """Returns whether the running interpreter's `tokenize` accepts a line on its own.

    A line may leave a bracket or a triple quote open, as the first line of a longer statement does. It may
    not hold a character that starts no token, or leave a string open. Lines inside a docstring are judged as
    if they were code, so even real source is not wholly accepted: read the share beside that of the corpus.
    """
    formats = 0  # f-strings open here; since 3.12 their parts are tokens
    try:
        for part in tokenize.generate_tokens(io.StringIO(line.strip() + '\n').readline):
            kind = token.tok_name[part.type]
            formats += (kind == 'FSTRING_START') - (kind == 'FSTRING_END')
            if part.type == token.ERRORTOKEN or part.type == token.NAME and not part.string.isidentifier():
                return False
            # since 3.12 stray characters such as $ and ? come as operators, and ! is one within an f-string
            stray = part.string not in token.EXACT_TOKEN_TYPES or part.string == '!' and not formats
            if part.type == token.OP and stray:
                return False
    except tokenize.TokenError as error:
        return 'EOF in multi-line' in str(error.args[0])
    except (SyntaxError, ValueError):  # IndentationError is a SyntaxError
        return False
    return True


def python_lines(texts: list[str]) -> tuple[int, int]:
    """Returns how many of the whole lines of `texts` are Python, and how many there are."""
    lines = [line for text in texts for line in whole_lines(text)]
    return sum(map(is_python_line, lines)), len(lines)
