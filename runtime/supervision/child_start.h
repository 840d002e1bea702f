// ChildStart: one start of a child host, from the reserved record to the running process.
//
// Create reserves the record; what the child is to have is shared with that record while its payload is being made;
// Commit has it started, by a fork server where one may serve and by a launch of our own otherwise.  Whatever fails,
// nothing is left running and nothing held: the destructor aborts what was not committed.
//
// Used by one thread.

#ifndef PYHOST_RUNTIME_SUPERVISION_CHILD_START_H_
#define PYHOST_RUNTIME_SUPERVISION_CHILD_START_H_

#include <sched.h>

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/base/ids.h"
#include "runtime/base/wait.h"
#include "runtime/os/launcher.h"
#include "runtime/session/session.h"
#include "runtime/supervision/child_process.h"
#include "runtime/supervision/protocol.h"
#include "runtime/supervision/start_attributes.h"

namespace pyhost {

// What a child gets instead of what its starter has.
struct StartOverrides {
  std::optional<std::vector<std::string>> environment;
  std::array<int, 3> standard = {-1, -1, -1};  // ours, to be its 0, 1 and 2; -1: as ours are
  int working_directory = -1;                  // an open directory of ours
  std::optional<cpu_set_t> affinity;
  uint64_t data_limit = 0;       // bytes, RLIMIT_DATA; 0: ours
  bool default_signals = false;  // none ignored, none blocked
};

class ChildStart {
 public:
  // `flags`: HostFlag bits.  ResourceExhausted when the host table is full.
  static absl::StatusOr<std::unique_ptr<ChildStart>> Create(Session* session, std::string_view name, uint32_t flags);
  ~ChildStart() { Abort(); }
  ChildStart(const ChildStart&) = delete;
  ChildStart& operator=(const ChildStart&) = delete;

  HostId id() const { return id_; }
  // The child will hold this object, which we hold.
  absl::Status Share(Handle handle);
  // The child will have this descriptor, under the same number.  It must stay open until Commit.
  void AddDescriptor(int fd) { passed_.push_back(fd); }
  // The descriptors in it must stay open until Commit.  Only a fork server can give a child what its starter has not:
  // where none may serve, Commit fails with FailedPrecondition.
  void Override(StartOverrides overrides) { overrides_ = std::move(overrides); }

  // Starts it; `body` is for its Python.  Returns when its pid is known.  Errors have an errno where a system call
  // failed, and name the limit met.
  absl::StatusOr<std::unique_ptr<ChildProcess>> Commit(const ServerSpec& server, std::span<const std::byte> body,
                                                       Wait wait);
  void Abort();

  // Has the server for these starts launched, if there is none yet; returns at once.  Errors are left to the first start.
  static absl::Status Warm(Session* session, const ServerSpec& server);
  // The same, but returns when it has a pid, or why it has none.  At once where no server may serve this process.
  static absl::Status EnsureServer(Session* session, const ServerSpec& server, Wait wait);

 private:
  ChildStart(Session* session, HostId id) : session_(session), id_(id) {}

  absl::StatusOr<std::unique_ptr<ChildProcess>> StartByServer(uint64_t key, std::span<const int> fds, Wait wait);
  absl::StatusOr<std::unique_ptr<ChildProcess>> StartByLaunch(const ServerSpec& server);
  // A start whose payload lies in its record: who may serve it, and what goes along.
  struct Prepared {
    uint64_t key;
    bool served;  // false: it has to be launched
    StartDescriptors descriptors;
  };
  absl::StatusOr<Prepared> Prepare(const ServerSpec& server, std::span<const std::byte> body);
  // Reserves a record that stands for the question and asks for the server; null where none may serve.
  static absl::StatusOr<std::unique_ptr<ChildStart>> AskForServer(Session* session, const ServerSpec& server);
  absl::Status AwaitServer(Wait wait);
  absl::StatusOr<pid_t> AwaitPid(Wait wait);
  absl::Status WhyNotStarted() const;

  Session* const session_;
  const HostId id_;
  std::vector<int> passed_;
  std::optional<StartOverrides> overrides_;
  bool ended_ = false;  // committed or aborted
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_SUPERVISION_CHILD_START_H_
