// Early start: the supervisor and the fork server of a program that will start processes are launched while the program's
// own interpreter comes up, on another processor, instead of after it.
//
// Which programs those are is read from the script's text: it names `multiprocessing` or `concurrent.futures`, and
// calls what starts processes.  Others, and every script with options of the interpreter, cost nothing but that look; their
// server is launched with the first object that wants a session, as ever.  A guess that is wrong costs a process that ends
// with the program.

#ifndef PYHOST_HOST_EARLY_START_H_
#define PYHOST_HOST_EARLY_START_H_

#include <string>
#include <string_view>
#include <vector>

namespace pyhost::host {

// Whether a script with this text will start processes by the method spawn.
bool WillStartProcesses(std::string_view script);

// When the interpreter is not up yet, but has settled the environment (locale coercion).  True: there is a session now, so
// the module `_pyhost` must be imported before any code of the program runs: its forks concern the session.
bool StartServersEarly(const std::vector<std::string>& argv);

}  // namespace pyhost::host

#endif  // PYHOST_HOST_EARLY_START_H_
