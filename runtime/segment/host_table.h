// HostTable: who is in the session, alive or just dead, and how each ended.
//
// One fixed record a slot (layout.h: HostRecord).  Life of a record, all in one atomic word with the
// generation:
//
//   Free -> Embryo (reserved by a starter or a forker) -> Running (adopted by its process)
//        -> Ended (exit word written)  -> Recovering (what it held is being given back) -> Free
//
// Invariants:
//  (1) Only the starter changes an Embryo, only the process itself makes it Running.
//  (2) The exit word is set at most once from "alive" to a value by the host itself, and may be
//      overwritten by its reaper with what the kernel says.
//  (3) A record becomes Free only after recovery, and not while a process still watches it (`watchers`),
//      so that join() and exit_reason() stay answerable; a watcher that died is cleared by its recovery.
//
// Thread- and process-safe.

#ifndef PYHOST_RUNTIME_SEGMENT_HOST_TABLE_H_
#define PYHOST_RUNTIME_SEGMENT_HOST_TABLE_H_

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/base/ids.h"
#include "runtime/base/wait.h"

namespace pyhost {

struct HostRecord;
class SegmentMap;

enum class HostState : uint32_t { kFree = 0, kEmbryo = 1, kRunning = 2, kEnded = 3, kRecovering = 4 };

enum class HostFlag : uint32_t {
  kRoot = 1,     // started by the user
  kDaemon = 2,   // ends with its parent
  kWorker = 4,   // a pool's worker: ends with its parent
  kForked = 8,   // by its parent's own fork(): reaped by the parent
  kEngine = 16,  // a C++ process without interpreter
  kSupervisor = 32,  // the session's supervisor
  kServer = 64,      // a fork server
};
constexpr uint32_t operator|(HostFlag a, HostFlag b) {
  return static_cast<uint32_t>(a) | static_cast<uint32_t>(b);
}

// How a host ended.
struct ExitStatus {
  enum class Kind : uint8_t {
    kAlive = 0,     // not ended, or not known yet
    kExited = 1,    // value = exit code
    kSignaled = 2,  // value = signal number
    kLost = 3,      // gone, and nobody could say how
    kNotStarted = 4, // its start failed; value = errno
    kBecameProgram = 5  // it called exec: no host any more, while its process goes on and will have an end of its own
  };
  Kind kind = Kind::kAlive;
  int value = 0;

  bool ended() const { return kind != Kind::kAlive; }
  // Its process has ended, too.
  bool settled() const { return ended() && kind != Kind::kBecameProgram; }
  friend bool operator==(const ExitStatus&, const ExitStatus&) = default;
  // Python's exitcode: code, negative signal, 255 when lost.
  int ExitCode() const;
  // "exited with code 3", "killed by SIGSEGV", ...
  std::string ToString() const;
  uint32_t Encode() const;
  static ExitStatus Decode(uint32_t word);
};

// A consistent copy of a record, for messages and decisions.
struct HostInfo {
  HostId id;
  HostState state = HostState::kFree;
  pid_t pid = 0;
  uint64_t start_time = 0;  // field 22 of /proc/pid/stat, so that a reused pid is not mistaken
  HostId parent;
  uint32_t flags = 0;
  ExitStatus exit;
  std::string name;     // the Process name, "MainProcess", ...
  std::string running;  // the function in its hands, may be empty

  bool has(HostFlag flag) const { return (flags & static_cast<uint32_t>(flag)) != 0; }
  // "host 3 'Process-2' (pid 811)".
  std::string Describe() const;
};

struct EmbryoOptions {
  HostId parent = {};
  uint32_t flags = 0;
  std::string_view name = {};
  Handle payload = {};  // start payload, or none
};

class HostTable {
 public:
  // `map` outlives the table.
  explicit HostTable(const SegmentMap* map);

  uint32_t capacity() const;
  uint32_t slots_used() const;  // only slots below this have ever been used

  // Reserves a record.  ResourceExhausted (naming the limit) when all are in use.  The parent watches it.
  absl::StatusOr<HostId> CreateEmbryo(const EmbryoOptions& options);
  // The embryo's process takes its record over: pid and start time of the calling process.
  absl::Status Adopt(HostId id);
  // Says which process an embryo will be, before that process itself runs (the forker knows first).
  absl::Status SetPid(HostId id, pid_t pid);

  absl::StatusOr<HostInfo> Info(HostId id) const;
  std::vector<HostInfo> List() const;  // all that are not Free
  bool IsRunning(HostId id) const;     // Embryo or Running, in this generation
  void SetName(HostId id, std::string_view name);
  void SetRunning(HostId id, std::string_view function);  // truncated to fit
  void SetPayload(HostId id, Handle payload);
  Handle payload(HostId id) const;

  // Asks the operating system, not the record: is the process of this host gone (or a zombie)?
  bool ProcessIsGone(HostId id) const;

  // Exit word.
  // A host says itself how it ends (`truth` false): it still runs on and holds what it holds, and nobody is woken.  Its
  // reaper says the `truth` when the process is gone: overwrites the word (but kLost and kBecameProgram overwrite nothing),
  // makes the record Ended, and wakes all who wait.
  void SetExit(HostId id, ExitStatus status, bool truth);
  ExitStatus Exit(HostId id) const;  // kLost for an id whose slot was already reused
  // Waits until the host's process is gone and its end is settled: the code that it wrote itself while leaving is not
  // enough.  DeadlineExceeded, or the interruptible's error.
  absl::StatusOr<ExitStatus> WaitForExit(HostId id, Wait wait) const;
  // Waits until what the host held has been given back, hence what it took along been reported.  DeadlineExceeded, or the
  // interruptible's error.
  absl::Status WaitForRecovery(HostId id, Wait wait) const;
  // Waits until the pid of an embryo is known, or it ended (start failed).
  absl::StatusOr<pid_t> WaitForPid(HostId id, Wait wait) const;

  // Ended -> Recovering, for exactly one caller; the caller then calls ObjectTable::Recover and FinishRecovery.
  // A recoverer that dies itself is replaced: `me` names it in the record.
  bool BeginRecovery(HostId id, HostId me);
  void FinishRecovery(HostId id);

  // A process that keeps an id (a parent's Process object) watches it; unwatched, recovered records are reused.
  // Watch only a host that cannot have been let go: one's own embryo, or one that somebody else watches meanwhile.
  void Watch(HostId id, HostId watcher);
  void Unwatch(HostId id, HostId watcher);
  void DropWatches(HostId dead_watcher);

 private:
  // The record while it is in that life; null otherwise.
  HostRecord* RecordOf(HostId id) const;
  absl::Status NoSuchHost(HostId id) const;
  void FillEmbryo(HostRecord& record, HostId id, const EmbryoOptions& options);
  void StorePid(HostRecord& record, HostId id, pid_t pid);
  void FreeIfUnwatched(HostRecord& record, HostId id);

  const SegmentMap* map_;
};

// The generation-checked liveness test used by lock words: false once that life of the slot has ended.
bool HostMayBeAlive(const HostTable& hosts, HostId id);

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_SEGMENT_HOST_TABLE_H_
