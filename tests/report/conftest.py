"""Look at figures before they become pixels."""

import pytest


@pytest.fixture
def drawn(monkeypatch):
    """Call a picture function and return the figure that it would have saved."""

    def draw(function, *arguments, **keywords):
        figures = []
        with monkeypatch.context() as patch:
            patch.setitem(function.__globals__, "save", lambda figure, path: figures.append(figure))
            function(*arguments, **keywords)
        (figure,) = figures
        return figure

    return draw
