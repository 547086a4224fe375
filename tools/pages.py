"""What `make docs` needs beyond mkdocs.yml: a hook of mkdocs, and an extension of griffe, which reads the sources.

barkfast itself is read, not imported.
"""

import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
# The pages outside docs/.
MORE = ("README.md", "CHANGELOG.md")


def on_files(files: Files, config: Any) -> Files:
    """Give every file the path that it has in the repository, and add those that the pages link to.

    So a relative link works in the repository and in the site.
    """
    names = list(MORE)
    for file in list(files):
        if file.src_dir == config.docs_dir:
            files.remove(file)
            names.append(Path(file.abs_src_path).relative_to(ROOT).as_posix())
    # The list grows: pages that are added have links, too.
    for name in names:
        if name.endswith(".md"):
            for target in re.findall(r"\]\(([^)#:\s]+)", (ROOT / name).read_text(encoding="utf-8")):
                path = (ROOT / name).parent.joinpath(target).resolve()
                if path.is_file() and path.relative_to(ROOT).as_posix() not in names:
                    names.append(path.relative_to(ROOT).as_posix())
        files.append(File(name, str(ROOT), config.site_dir, config.use_directory_urls))
    return files


class Arguments(griffe.Extension):
    """Give a method with `@barkfast.options.takes(Class)` the parameters of that dataclass, and their descriptions."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        request = pkg["options.Request"]
        request.docstring = describe(request, request)
        for owner in (pkg["bark.Bark"], pkg["engine.async_engine.Engine"]):
            for method in owner.functions.values():
                for decorator in method.decorators:
                    if decorator.callable_path == "barkfast.options.takes":
                        taken = pkg[decorator.value.arguments[0].canonical_path.removeprefix("barkfast.")]
                        method.parameters = griffe.Parameters(method.parameters[0], *parameters_of(taken))
                        method.docstring = describe(method, taken)


def parameters_of(taken: griffe.Class) -> list[griffe.Parameter]:
    """The parameters of a dataclass, without self."""
    return list(taken.members["__init__"].parameters)[1:]


def describe(documented: griffe.Object, taken: griffe.Class) -> griffe.Docstring:
    """The docstring of `documented`, with what a dataclass and those it inherits from say of the parameters."""
    said: dict[str, str] = {}
    for kind in reversed([taken, *taken.mro()]):
        for section in griffe.parse_google(kind.docstring, warnings=False):
            if isinstance(section, griffe.DocstringSectionParameters):
                said |= {entry.name: entry.description for entry in section.value}
    entries = [
        f"    {parameter.name}: " + said[parameter.name].replace("\n", "\n        ")
        for parameter in parameters_of(taken)
    ]
    own, *rest = re.split(r"\n\n(?=Returns:|Raises:)", documented.docstring.value, maxsplit=1)
    text = "\n\n".join([own.partition("\n\nArgs:")[0], "\n".join(["Args:", *entries]), *rest])
    return griffe.Docstring(text, parent=documented, parser="google")
