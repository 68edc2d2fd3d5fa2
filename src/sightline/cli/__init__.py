"""The command line: parse, call one workflow, print.

Results go to standard output, everything else to standard error. Exit codes: 0 done; 1 failure;
2 usage, configuration or data; 3 a gate missed; 4 finished with quarantined examples; 5 a damaged
store; 130 and 143 stopped by a signal, resumable.
"""

from __future__ import annotations

import errno
import os
import sys
from importlib import import_module

import click

import sightline
from sightline.cli.groups import Group

_COMMANDS = {
    "collect": ("sightline.cli.collecting", "collect_command"),
    "classify": ("sightline.cli.classifying", "classify_command"),
    "rerank": ("sightline.cli.classifying", "rerank_command"),
    "derive": ("sightline.cli.deriving", "derive_command"),
    "import": ("sightline.cli.importing", "import_command"),
    "evaluate": ("sightline.cli.evaluating", "evaluate_command"),
    "audit": ("sightline.cli.auditing", "audit_command"),
    "fit": ("sightline.cli.fitting", "fit_command"),
    "calibrate": ("sightline.cli.policies", "calibrate_command"),
    "apply": ("sightline.cli.policies", "apply_command"),
    "ask": ("sightline.cli.asking", "ask_command"),
    "report": ("sightline.cli.evaluating", "report_command"),
    "serve": ("sightline.cli.serving", "serve_command"),
    "study": ("sightline.cli.studies", "study_command"),
    "runs": ("sightline.cli.runs", "runs_group"),
    "perturbations": ("sightline.cli.perturbing", "perturbations_command"),
    "models": ("sightline.cli.about", "models_group"),
    "doctor": ("sightline.cli.about", "doctor_command"),
}


_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


class _Lazy(Group):
    """A group that imports a command's module when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, name = _COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(module), name)
        return command


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(sightline.__version__, prog_name="sightline")
def cli() -> None:
    """Know when a vision-language model can be trusted."""


def main() -> None:
    """Runs the command line and exits with the code of `sightline.core.errors`."""
    from sightline.core.errors import SightlineError

    try:
        code = cli.main(prog_name="sightline", standalone_mode=False)
    except SightlineError as error:
        _fail(str(error))
        sys.exit(error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help(), err=True)
        sys.exit(2)
    except click.ClickException as error:
        _fail(error.format_message())
        sys.exit(2)
    except OSError as error:
        # Stores name their files; an error without one comes from printing.
        if error.errno not in _DISK or error.filename is not None:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        _fail(
            f"Writing standard output failed: {error.strerror}; a disk with free space is "
            "required. What is there now is not whole: mend the disk and run the command again."
        )
        sys.exit(1)
    except (click.Abort, KeyboardInterrupt):
        _fail("stopped; what was committed is kept. Run the same command to go on.")
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str) -> None:
    from sightline.core.printing import printable

    click.echo(f"sightline: {printable(' '.join(message.split()))}", err=True)
