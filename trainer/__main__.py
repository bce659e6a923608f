"""The command line: words in, a typed configuration to `trainer.job`, a code out.

Turns Hydra's composition into a `RunConfig` and every error into one screen. It is
the only place that knows Hydra, and it imports neither JAX nor Keras: both come with
a job, after the checks have passed.
"""

from __future__ import annotations

from trainer.config.interruption import listen

if __name__ == "__main__":
    listen()  # before the imports below, which take a fifth of a second

import contextlib
import io
import itertools
import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override as HydraOverride
from hydra.core.override_parser.types import QuotedString, Transformer
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from trainer.config.checks import find_problems, raise_problems
from trainer.config.choices import conf_directory
from trainer.config.compose import spell_as_typed, to_run_config
from trainer.config.ending import STOPPED_BY_USER, end, exit_code_of
from trainer.config.errors import ConfigError, Preempted
from trainer.config.identity import sweep_name
from trainer.config.override_checks import Override, override_problem
from trainer.config.overrides import in_quotes, is_override, normalise_overrides
from trainer.config.schema import RunConfig
from trainer.config.switches import parse_switches
from trainer.job import run_job

_SHOWS_ONLY = ("help", "hydra_help", "info", "shell_completion")
_MAX_CHECKED_JOBS = 256

ConfigStore.instance().store(name="schema", node=RunConfig, provider="trainer")


def main() -> None:
    """Run what the command line says and leave with its exit code."""
    listen()
    arguments = _switches_first(normalise_overrides(sys.argv[1:]))
    end(lambda: _command(arguments), debug="debug=true" in arguments)


def compose(arguments: Sequence[str]) -> RunConfig:
    """Return the checked configuration of a command line, without running it.

    Raises:
        ConfigError: An override or a combination cannot be meant.
    """
    parsed = _parse(normalise_overrides(arguments))
    with _hydra():
        raise_problems(_problems(parsed))
        return _composed(_jobs(parsed)[0])


def _command(arguments: list[str]) -> int:
    """Check all jobs of the command line, then let Hydra run them."""
    switches = parse_switches(get_args_parser(), arguments)
    if switches.experimental_rerun:
        raise ConfigError(
            key="--experimental-rerun",
            expected="key=value",
            received=switches.experimental_rerun,
            fix="repeat the command: a run goes on by itself. Pickles are not read",
        )
    if any(getattr(switches, name) for name in _SHOWS_ONLY):
        return _show(arguments)
    parsed = _parse(switches.overrides)
    foreign = switches.config_dir or switches.config_path or switches.config_name
    if foreign and any(word.key_or_group == "launch" for word in parsed):
        raise ConfigError(
            key="launch",
            expected="the trainer's own conf/, which is all that its processes have",
            received=foreign,
            fix="put the file into conf/ and leave the switch out",
        )
    if not foreign:
        with _hydra():
            raise_problems(
                _problems(parsed, sweep=switches.multirun, combine=not switches.cfg)
            )
    if switches.cfg and switches.multirun:
        return _show_jobs(arguments, parsed)
    if switches.cfg:
        return _show(arguments)
    if switches.multirun:
        swept = [word.key_or_group for word in parsed if word.is_sweep_override()]
        return _multirun(arguments, sweep_name(swept, switches.overrides))
    codes: list[int] = []
    _hydra_main(arguments, lambda composed: codes.append(_guarded_job(composed)))
    return codes[0]


def _guarded_job(composed: DictConfig) -> int:
    def job() -> int:
        return run_job(to_run_config(composed), HydraConfig.get().overrides.task)

    return exit_code_of(job, debug=bool(composed.debug))


def _multirun(arguments: list[str], name: str) -> int:
    """Run every job below `<run.root>/<name>/`; a failed one does not stop the rest.

    An explicit `run.name` names the sweep. Returns the first code that is not 0.
    """
    codes: list[int] = []
    directories: list[str] = []
    failed: list[tuple[str, int]] = []

    def job(composed: DictConfig) -> None:
        directory = f"{composed.run.root.rstrip('/')}/{composed.run.name or name}"
        composed.run.root, composed.run.name = directory, None
        directories.append(directory)
        codes.append(_guarded_job(composed))
        if codes[-1]:
            words = shlex.join(HydraConfig.get().overrides.task)
            failed.append((words, codes[-1]))
        if codes[-1] in (STOPPED_BY_USER, Preempted.exit_code):
            raise SystemExit(codes[-1])

    try:
        with tempfile.TemporaryDirectory() as scratch:  # for Hydra's multirun.yaml
            _hydra_main([*arguments, f"hydra.sweep.dir={scratch}"], job)
    finally:
        _summarise(directories, failed)
    return next((code for code in codes if code), 0)


def _summarise(directories: Sequence[str], failed: Sequence[tuple[str, int]]) -> None:
    """Write the summary of each sweep directory and say where it is."""
    if directories:
        from trainer.artifacts.sweep import write_summary
    for directory in dict.fromkeys(directories):
        write_summary(directory, failed=failed)
        print(f"summary of the sweep: {directory}/summary.md")


def _show(arguments: list[str]) -> int:
    """Let Hydra print help or the configuration, spelled as it is typed."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            _hydra_main(arguments, lambda config: None)
    finally:
        sys.stdout.write(spell_as_typed(printed.getvalue()))
    return 0


def _show_jobs(arguments: list[str], parsed: Sequence[HydraOverride]) -> int:
    """Print the configuration of every job of a multirun, a YAML document each."""
    dropped = ("--multirun", "-m")
    switches = [w for w in arguments if not is_override(w) and w not in dropped]
    for number, job in enumerate(_jobs(parsed)):
        print(f"--- # job {number}: {' '.join(job)}")
        _show([*switches, *job])
    return 0


def _hydra_main(arguments: list[str], task: Callable[[DictConfig], None]) -> None:
    """Call Hydra's own entry point; its errors come through as exceptions."""
    before = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = [sys.argv[0], *arguments]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        hydra.main(
            config_path=str(conf_directory()), config_name="config", version_base="1.3"
        )(task)()
    except (HydraException, OmegaConfBaseException) as error:
        raise _as_config_error(error) from error
    finally:
        sys.argv = before[0]
        os.environ.pop("HYDRA_FULL_ERROR")
        if before[1] is not None:
            os.environ["HYDRA_FULL_ERROR"] = before[1]


@contextlib.contextmanager
def _hydra() -> Iterator[None]:
    """Make Hydra compose from `conf/` while the context lasts."""
    directory = str(conf_directory())
    with hydra.initialize_config_dir(config_dir=directory, version_base="1.3"):
        yield


def _switches_first(arguments: list[str]) -> list[str]:
    """Move overrides behind the switches, since argparse takes them in one piece."""
    return sorted(arguments, key=is_override)


def _parse(overrides: Sequence[str]) -> list[HydraOverride]:
    """Split overrides by Hydra's grammar.

    Raises:
        ConfigError: One is no override.
    """
    parser = OverridesParser.create()
    parsed: list[HydraOverride] = []
    for text in overrides:
        try:
            parsed.append(parser.parse_override(text))
        except HydraException as error:
            raise ConfigError(
                key=text.split("=", 1)[0],
                expected="key=value, with values of odd characters in quotes",
                received=text,
                fix=in_quotes(text),
            ) from error
    return parsed


def _jobs(parsed: Sequence[HydraOverride]) -> list[list[str]]:
    """Return the overrides of every job: the product of all swept values."""
    choices = [
        [f"{word.get_key_element()}={v}" for v in word.sweep_string_iterator()]
        if word.is_discrete_sweep()
        else [str(word.input_line)]
        for word in parsed
        if word.is_discrete_sweep() or not word.is_sweep_override()
    ]
    product = itertools.product(*choices)
    return [list(job) for job in itertools.islice(product, _MAX_CHECKED_JOBS)]


def _problems(
    parsed: Sequence[HydraOverride], *, sweep: bool = False, combine: bool = True
) -> list[ConfigError]:
    """Return what is wrong with the words and, when wanted, with what they make."""
    judged = [(word, _problem(word, sweep=sweep)) for word in parsed]
    problems = [problem for _, problem in judged if problem]
    if not combine:
        return problems
    sound = [word for word, problem in judged if not problem]
    for job in _jobs(sound):
        try:
            problems += find_problems(_composed(job))
        except (HydraException, OmegaConfBaseException) as error:
            if not problems:
                problems.append(_as_config_error(error))
    return list({problem.message(): problem for problem in problems}.values())


def _problem(word: HydraOverride, *, sweep: bool) -> ConfigError | None:
    if word.is_sweep_override() and not sweep:
        return ConfigError(
            key=word.key_or_group,
            expected="one value",
            received=word.input_line,
            fix="add --multirun for a run each, or quotes for one text with commas",
        )
    values = [] if word.is_sweep_override() else [word.value()]
    if word.is_discrete_sweep():
        values = list(word.sweep_iterator(transformer=Transformer.identity))
    return override_problem(
        Override(
            key=word.key_or_group,
            values=tuple(v.text if isinstance(v, QuotedString) else v for v in values),
            removes=word.is_delete(),
            text=word.input_line or word.key_or_group,
        )
    )


def _composed(words: list[str]) -> RunConfig:
    return to_run_config(hydra.compose("config", overrides=words))


def _as_config_error(error: Exception) -> ConfigError:
    """Return Hydra's or OmegaConf's own message as ours."""
    lines = [line for line in f"{error}\n{error.__cause__ or ''}".splitlines() if line]
    key = getattr(error, "full_key", None) or getattr(error.__cause__, "full_key", None)
    return ConfigError(
        key=key or "command line",
        expected="a configuration that composes",
        received="\n".join(lines[:6]),
        fix="python -m trainer --help lists groups, keys and defaults",
    )


if __name__ == "__main__":
    main()
