// An activated virtual environment: $VIRTUAL_ENV, honoured by a pyhost that lies outside of it.
//
// python3 knows a virtual environment by where the program was started: <venv>/bin/python beside a
// pyvenv.cfg.  `pyhost` found on PATH lies outside of the activated environment, so it looks at the variable
// that activation sets.  A program that lies in an environment itself belongs to that one, as in python3.

#ifndef PYHOST_HOST_VIRTUAL_ENV_H_
#define PYHOST_HOST_VIRTUAL_ENV_H_

#include <optional>
#include <string>

namespace pyhost::host {

// Whether Python takes another program for this one, by its argv[0], which is any text that the starter chose: PATH has
// another of that name, or there is no text (Python looks for `python3` then).  Not where it names a folder: so do
// scripts around pyhost, which are to be what children run.
bool NamesAnotherProgram(const std::string& argv0);

// The absolute path of the program as Python computes it: argv[0] where it names a folder, else looked up on
// PATH, symbolic links kept.  Empty where it is not found.  Where that is another program: this one's own path.
std::string ProgramPath(const std::string& argv0);

// The program that `program`, a copy in a virtual environment (`venv --copies`), was made from, where that is still there.
// Python looks in the original's folder for a file with the copy's name: pyhost's has none that is called `python`, or
// one that is another Python.  Nothing for links, which Python follows.
std::optional<std::string> CopiedFrom(const std::string& program);

// The environment that $VIRTUAL_ENV names, where `program` lies in none itself.  Nothing where the variable is
// unset, or names something unusable (not an environment, or of another Python version): that is said on stderr, if
// `warn`, which is for the process that the user started.
std::optional<std::string> ActivatedEnvironment(const std::string& program, bool warn);

}  // namespace pyhost::host

#endif  // PYHOST_HOST_VIRTUAL_ENV_H_
