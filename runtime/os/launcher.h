// Launcher: starts a program.  The seam between supervision and the operating system: tests use a scripted
// fake, everything else the one made by NewProcessLauncher (launcher.cc, the only file that knows Boost.Process).
//
// Thread-safe.

#ifndef PYHOST_RUNTIME_OS_LAUNCHER_H_
#define PYHOST_RUNTIME_OS_LAUNCHER_H_

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace pyhost {

struct LaunchOptions {
  std::string program;                   // absolute path
  std::vector<std::string> arguments;    // arguments[0] is the name shown by ps
  std::vector<std::string> environment;  // "NAME=value"

  // Which of our descriptors the program gets, and as which number.  0, 1 and 2 are passed on as they are where
  // not listed; every other descriptor is closed in the program, whatever its close-on-exec flag.
  struct Descriptor {
    int ours;
    int theirs;
  };
  std::vector<Descriptor> descriptors;
};

class Launcher {
 public:
  virtual ~Launcher() = default;
  // The pid of the new process, whose parent is the caller.  Errors carry the errno and name the program; nothing is
  // left running then.
  virtual absl::StatusOr<pid_t> Launch(const LaunchOptions& options) = 0;
};

// vfork through Boost.Process: takes as long for a large process as for a small one.
std::unique_ptr<Launcher> NewProcessLauncher();

// Launches through `launcher` in such a way that the new process is not our child: no SIGCHLD, nothing for a wait of
// the program's own to find.  (An intermediate process that shares our memory launches it and ends.)
absl::Status LaunchDetached(Launcher& launcher, const LaunchOptions& options);

// The calling process's environment.
std::vector<std::string> CurrentEnvironment();

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_OS_LAUNCHER_H_
