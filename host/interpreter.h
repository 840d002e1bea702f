// The interpreter in this process: start it as python3 would, run something, finalize it.
//
// One interpreter life a process: StartInterpreter, then one of RunMainJob or any number of CallEntry, then (not
// after RunMainJob) FinalizeInterpreter.  All from one thread, the process's main thread, which holds the GIL
// from a successful start until it is finalized.

#ifndef PYHOST_HOST_INTERPRETER_H_
#define PYHOST_HOST_INTERPRETER_H_

#include <optional>
#include <string>
#include <vector>

namespace pyhost::host {

// Who started this process decides who is warned about what its surroundings hold (virtual_env.h).
enum class StartedBy { kUser, kPyhost };

// Starts Python with a command line in python3's own syntax: program, options, and then (where there is a main
// job) a script, -c, -m and so on, with its arguments.  argv[0] decides sys.executable, as in python3.  Locale
// coercion, UTF-8 mode, environment variables, signal handlers and `site` are python3's; pyhost adds the drop-in
// finder, its built-in modules, and an activated virtual environment.
//
// Nothing on success.  Otherwise Python is not up and the process must leave with the given exit code; what was
// wrong (or what --help or --version asked for) has been printed.  An error in the start itself ends the process
// with Python's own message.
[[nodiscard]] std::optional<int> StartInterpreter(const std::vector<std::string>& argv,
                                                  StartedBy started_by = StartedBy::kUser);

// Runs the main job of the command line (the prompt where it names none), with python3's handling of SystemExit,
// KeyboardInterrupt, -i and PYTHONINSPECT; finalizes the interpreter and returns the exit code.
[[nodiscard]] int RunMainJob();

// Imports `module` and calls its `function` without arguments.  Returns the exit code that python3 would derive:
// 0 after a return, that of a SystemExit (a text goes to stderr: 1), 1 after any other exception, whose
// traceback goes to stderr.  The interpreter stays up.
[[nodiscard]] int CallEntry(const char* module, const char* function);

// Whether Python threads run besides this one.
[[nodiscard]] bool HasOtherThreads();

// Runs atexit functions, waits for non-daemon threads, flushes the standard streams and ends the interpreter.
// Returns exit_code, or 120 where the streams could not be flushed, as python3 does.
[[nodiscard]] int FinalizeInterpreter(int exit_code);

}  // namespace pyhost::host

#endif  // PYHOST_HOST_INTERPRETER_H_
