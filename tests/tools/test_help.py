"""Every command explains itself."""

import pytest

from bench.__main__ import TOOLS, main


@pytest.mark.parametrize("tool", TOOLS)
def test_a_command_tells_its_options(tool: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([tool, "--help"])
    assert caught.value.code == 0
    told = capsys.readouterr().out
    assert f"python -m bench {tool}" in told
    assert "None" not in told
