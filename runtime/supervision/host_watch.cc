#include "runtime/supervision/host_watch.h"

#include <signal.h>
#include <sys/stat.h>

#include <optional>
#include <utility>

#include "absl/time/time.h"
#include "runtime/base/crash_point.h"
#include "runtime/os/pidfd.h"
#include "runtime/os/process.h"
#include "runtime/segment/object_table.h"
#include "runtime/supervision/reaper.h"

namespace pyhost {
namespace {

// Between the end of a host and its exit word lies only its reaper's wait(); a reaper that the program itself plays
// (a user's waitpid(-1)) never writes one.
constexpr absl::Duration kReaperStep = absl::Milliseconds(10);
constexpr int kReaperTries = 30;

// Between two looks at a process that has no pidfd.
constexpr absl::Duration kLook = absl::Milliseconds(100);

// A daemon whose parent died is asked to end, then made to, all within a second.
constexpr absl::Duration kOrphanPatience = absl::Milliseconds(400);

constexpr uint32_t kServiceFlags = HostFlag::kSupervisor | HostFlag::kServer;
constexpr uint32_t kDependentFlags = HostFlag::kDaemon | HostFlag::kWorker;

}  // namespace

HostWatch::HostWatch(Segment* segment, HostId me, EventLoop* loop, std::function<void(HostId)> on_end)
    : segment_(segment), me_(me), loop_(loop), on_end_(std::move(on_end)) {}

void HostWatch::Add(HostId id, UniqueFd life) {
  absl::StatusOr<HostInfo> info = segment_->hosts().Info(id);
  // A host whose pid nobody knows yet announces itself when it runs.
  if (!info.ok() || info->pid == 0 || info->state == HostState::kRecovering) return;
  auto [entry, is_new] = watched_.try_emplace(id.value());
  Watched* watched = &entry->second;
  if (life.valid()) WatchLife(id, std::move(life), watched);
  if (is_new) WatchProcess(id, *info, watched);
}

void HostWatch::WatchProcess(HostId id, const HostInfo& info, Watched* watched) {
  watched->pid = info.pid;
  watched->counts = (info.flags & kServiceFlags) == 0;
  if (watched->counts) ++user_hosts_;
  absl::StatusOr<UniqueFd> process = OpenPidfd(info.pid);
  bool is_it = process.ok() && !ProcessIsGone(info.pid, info.start_time);
  if (process.ok()) watched->process = *std::move(process);
  absl::StatusOr<EventLoop::Token> token = absl::UnavailableError("");
  if (is_it) token = loop_->Watch(watched->process.get(), [this, id] { OnGone(id); });
  if (token.ok()) {
    watched->process_token = *token;
    // Born after its parent's death.
    bool dependent = (info.flags & kDependentFlags) != 0;
    if (dependent && info.parent && !segment_->hosts().IsRunning(info.parent)) EndOrphan(id);
  } else if (ProcessIsGone(info.pid, info.start_time)) {
    loop_->After(absl::ZeroDuration(), [this, id] { OnGone(id); });
  } else {
    LookLater(id);
  }
}

void HostWatch::LookLater(HostId id) {
  loop_->After(kLook, [this, id] {
    auto found = watched_.find(id.value());
    if (found == watched_.end()) return;
    segment_->hosts().ProcessIsGone(id) ? OnGone(id) : LookLater(id);
  });
}

void HostWatch::WatchLife(HostId id, UniqueFd life, Watched* watched) {
  loop_->Forget(watched->life_token);
  watched->life = std::move(life);
  absl::StatusOr<EventLoop::Token> token = loop_->Watch(watched->life.get(), [this, id] { OnLifeEnd(id); });
  watched->life_token = token.ok() ? *token : 0;
}

void HostWatch::OnLifeEnd(HostId id) {
  auto found = watched_.find(id.value());
  if (found == watched_.end()) return;
  loop_->Forget(std::exchange(found->second.life_token, 0));
  found->second.life.reset();
  if (PidfdIsReadable(found->second.process.get())) return;  // it ended: OnGone
  struct stat file = {};
  // A program that closes all its descriptors still has the segment in its memory; another program has not.
  if (fstat(segment_->fd(), &file) != 0 || ProcessMaps(found->second.pid, file.st_dev, file.st_ino)) return;
  OnExec(id, &found->second);
}

// How the program ends is its reaper's business.  A daemon's has to end with the parent as the daemon had to.
void HostWatch::OnExec(HostId id, Watched* watched) {
  absl::StatusOr<HostInfo> info = segment_->hosts().Info(id);
  if (info.ok() && (info->flags & kDependentFlags) != 0) {
    watched->parent = info->parent;
  } else {
    Uncount(watched);
  }
  segment_->hosts().SetExit(id, {ExitStatus::Kind::kBecameProgram, 0}, /*truth=*/true);
  Bury(id);
}

void HostWatch::OnGone(HostId id) {
  auto found = watched_.find(id.value());
  if (found == watched_.end()) return;
  loop_->Forget(std::exchange(found->second.process_token, 0));
  AwaitReaper(id, kReaperTries);
}

// Who forked it reaps it, and then says how it ended.  A program may leave its own children (method fork, os.fork) zombies
// for as long as it likes; of those the kernel tells the status.
void HostWatch::AwaitReaper(HostId id, int tries_left) {
  auto found = watched_.find(id.value());
  if (found == watched_.end()) return;
  HostTable& hosts = segment_->hosts();
  absl::StatusOr<HostInfo> info = hosts.Info(id);
  const bool reaped_by_program = info.ok() && info->has(HostFlag::kForked);
  if (reaped_by_program || tries_left == 0) {
    std::optional<int> status = ZombieWaitStatus(found->second.pid);
    if (status) hosts.SetExit(id, ExitStatusOfWait(*status), /*truth=*/true);
  }
  const bool settled = !hosts.IsRunning(id) || (reaped_by_program && hosts.Exit(id).ended());
  if (settled || tries_left == 0) return Finish(id);
  loop_->After(kReaperStep, [this, id, tries_left] { AwaitReaper(id, tries_left - 1); });
}

void HostWatch::OnReaped(pid_t pid, ExitStatus status) {
  for (const HostInfo& info : segment_->hosts().List()) {
    bool ours = info.pid == pid && (info.state == HostState::kEmbryo || info.state == HostState::kRunning ||
                                    info.exit.kind == ExitStatus::Kind::kBecameProgram);
    if (ours) segment_->hosts().SetExit(info.id, status, /*truth=*/true);
  }
}

void HostWatch::Finish(HostId id) {
  auto found = watched_.find(id.value());
  if (found == watched_.end()) return;
  loop_->Forget(found->second.process_token);
  loop_->Forget(found->second.life_token);
  Uncount(&found->second);
  watched_.erase(found);
  // Never overwrites a word that somebody wrote; makes it final.
  segment_->hosts().SetExit(id, {ExitStatus::Kind::kLost, 0}, /*truth=*/true);
  Bury(id);
}

void HostWatch::Uncount(Watched* watched) {
  if (std::exchange(watched->counts, false)) --user_hosts_;
}

void HostWatch::Bury(HostId id) {
  PYHOST_CRASH_POINT("supervisor-before-recovery");
  EndOrphansOf(id);  // first: one that is stopped may hold a lock that recovery needs
  Recover(id);
  on_end_(id);
}

void HostWatch::Recover(HostId id) {
  HostTable& hosts = segment_->hosts();
  if (!hosts.BeginRecovery(id, me_)) return;
  segment_->objects().Recover(id, me_);
  // Fails only where a kind is not registered (the supervisor's program registers all); counts stay too high then.
  segment_->objects().RecountTransits(me_).IgnoreError();
  hosts.DropWatches(id);
  hosts.FinishRecovery(id);
}

void HostWatch::EndOrphansOf(HostId parent) {
  for (const HostInfo& info : segment_->hosts().List()) {
    if (!(info.parent == parent) || (info.flags & kDependentFlags) == 0) continue;
    if (!segment_->hosts().IsRunning(info.id)) continue;
    EndOrphan(info.id);
  }
  for (const auto& [id, watched] : watched_) {
    if (watched.parent && watched.parent == parent) EndOrphan(HostId::FromValue(id));
  }
}

void HostWatch::EndOrphan(HostId id) {
  Kill(id, SIGTERM);
  Kill(id, SIGCONT);  // for one that is stopped
  loop_->After(kOrphanPatience, [this, id] { Kill(id, SIGKILL); });
}

void HostWatch::Kill(HostId id, int signal) {
  auto found = watched_.find(id.value());
  if (found != watched_.end() && found->second.process.valid()) {
    SendSignal(found->second.process.get(), signal).IgnoreError();  // NotFound: it was quicker
  }
}

}  // namespace pyhost
