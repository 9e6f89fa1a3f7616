"""Measures which lines of a text are Python."""

import io
import token
import tokenize


def whole_lines(text: str) -> list[str]:
    """Complete, non-blank lines of a passage, without indentation.

    The first and last line may be incomplete; the indentation of a single line has no meaning.
    """
    return [line.strip() for line in text.split('\n')[1:-1] if line.strip()]


def is_python_line(line: str) -> bool:
    """Whether the running interpreter's `tokenize` accepts a line alone.

    A line may leave a bracket or triple quote open, like the first line of a longer statement. It must not contain a
    character that starts no token, or an unclosed string. Lines inside docstrings are judged as code, so even real
    source is not fully accepted: compare the share with that of the corpus.
    """
    formats = 0  # f-strings open here; since 3.12 their parts are tokens
    try:
        for part in tokenize.generate_tokens(io.StringIO(line.strip() + '\n').readline):
            name = token.tok_name[part.type]
            formats += (name == 'FSTRING_START') - (name == 'FSTRING_END')
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
    """(Python lines, all complete lines) in `texts`."""
    lines = [line for text in texts for line in whole_lines(text)]
    return sum(map(is_python_line, lines)), len(lines)
