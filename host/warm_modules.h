// WarmModules: a spawn server imports what its children's main module imports of the standard library, so that they have it
// from the fork: what the script begins with before the first start, the rest when the first child has told of it.  What
// that is, and when children may not have it, is multiprocessing/warm_modules.py's business; here is when: the rest after a
// report and a few starts, as soon as no other has come for a moment.
//
//   waiting for a report -- Receive() --> reported -- Import() --> done: no more reports
//
// Children inherit the end to report to, until it is done.  Used by the server's one thread, with the GIL.

#ifndef PYHOST_HOST_WARM_MODULES_H_
#define PYHOST_HOST_WARM_MODULES_H_

#include <string>

#include "absl/status/statusor.h"
#include "runtime/os/unique_fd.h"

namespace pyhost::host {

class WarmModules {
 public:
  // Of a server that never has any.
  WarmModules() = default;
  // From now on children report.
  static absl::StatusOr<WarmModules> Serve();
  // What the script imports first is imported.  Before Serve().
  static absl::Status ImportFor(const std::string& script);

  // To be polled for input; -1 when there is nothing to wait for.
  int fd() const { return reports_.get(); }
  void Receive();
  // There is something to import.
  bool reported() const { return !report_.empty(); }
  // Imports it.  The modules that every child begins with are others afterwards.
  absl::Status Import();
  // In a child: lets go of the server's end.
  void LetGo() { reports_.reset(); }

 private:
  WarmModules(UniqueFd reports, UniqueFd childrens_end)
      : reports_(std::move(reports)), childrens_end_(std::move(childrens_end)) {}

  UniqueFd reports_;
  UniqueFd childrens_end_;
  std::string report_;
};

}  // namespace pyhost::host

#endif  // PYHOST_HOST_WARM_MODULES_H_
