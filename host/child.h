// A child host: forked by a fork server, or launched anew where no server may serve.  The same life for both: in the
// session, with its starter's attributes, it runs what its payload says and leaves with that exit code.

#ifndef PYHOST_HOST_CHILD_H_
#define PYHOST_HOST_CHILD_H_

#include <sys/stat.h>

#include <array>
#include <memory>
#include <vector>

#include "host/child_exit.h"
#include "runtime/os/unique_fd.h"
#include "runtime/os/warm_pages.h"
#include "runtime/supervision/start_attributes.h"

namespace pyhost::host {

// Which files the interpreter's standard streams were made for.
struct StandardFiles {
  std::array<struct stat, 3> files;
  std::array<bool, 3> open;

  static StandardFiles Now();
  bool Same(const StandardFiles& other, int number) const;
};

// How a server is when it forks: what its children compare with, to change only what differs.
struct ServerState {
  StandardFiles streams;  // what the interpreter's standard streams were made for
  StartAttributes attributes;
  InterpreterSnapshot interpreter;
  std::unique_ptr<WarmPages> warm;  // null: children begin cold

  // `streams`: when the interpreter was started.  The rest as it is now.
  static absl::StatusOr<ServerState> Capture(const StandardFiles& streams, InterpreterSnapshot interpreter);
};

// In a fork of a server that has adopted its record: takes over `received`, the start's descriptors, runs, and ends the
// process.  `defer_unmap`: the machine has time to give back its memory later (runtime/os/deferred_unmap.h).
[[noreturn]] void RunForkedChild(std::vector<UniqueFd> received, ServerState& server, bool defer_unmap);

// The internal mode `child`: a launch that inherited everything from its starter.
int ChildMain(int argc, char** argv);

}  // namespace pyhost::host

#endif  // PYHOST_HOST_CHILD_H_
