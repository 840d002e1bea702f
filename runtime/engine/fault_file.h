// FaultFile: where a worker writes where it is when it crashes, or when it is asked to by a signal: Python's faulthandler, which
// needs nothing of an interpreter that still works.  A memory file that engine and worker share.
//
// Thread-safe.

#ifndef PYHOST_RUNTIME_ENGINE_FAULT_FILE_H_
#define PYHOST_RUNTIME_ENGINE_FAULT_FILE_H_

#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "runtime/os/unique_fd.h"

namespace pyhost {

class FaultFile {
 public:
  static absl::StatusOr<std::unique_ptr<FaultFile>> Create();

  int fd() const { return fd_.get(); }
  // The signal that makes the worker write.
  static int DumpSignal();
  // What was written: the last kilobytes.
  std::string Read() const;
  // After DumpSignal(): until the dump is there.  A process writes it within microseconds; one that cannot is not waited for.
  void AwaitDump() const;

 private:
  explicit FaultFile(UniqueFd fd) : fd_(std::move(fd)) {}
  const UniqueFd fd_;
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_ENGINE_FAULT_FILE_H_
