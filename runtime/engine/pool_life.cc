// How a pool begins and ends, and what is told of it (pool_core.h).

#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/base/mutex_lock.h"
#include "runtime/base/status_util.h"
#include "runtime/engine/engine_session.h"
#include "runtime/engine/pool_core.h"
#include "runtime/engine/program.h"
#include "runtime/engine/reply_error.h"
#include "runtime/os/cpu.h"
#include "runtime/segment/host_table.h"
#include "runtime/segment/segment.h"
#include "runtime/values/segment_block.h"

namespace pyhost {
namespace {

// An error of the start that the program can be blamed for, rather than the options or a limit.
absl::Status BlameProgram(const absl::Status& status, const std::string& program) {
  if (!absl::IsUnavailable(status) && !absl::IsDeadlineExceeded(status)) return status;
  return Annotate(status, absl::StrCat("'", program, "' did not come up as pyhost ", EngineVersion()));
}

// For another thread that has the last replies in its hands; a thousand times what it needs.
constexpr absl::Duration kDrainPatience = absl::Seconds(1);

}  // namespace

absl::StatusOr<std::shared_ptr<PoolCore>> PoolCore::Start(Options options) {
  if (options.workers < 0) return absl::InvalidArgumentError(absl::StrCat("a pool of ", options.workers, " workers"));
  if (options.workers == 0) options.workers = UsableCores();
  PYHOST_RETURN_IF_ERROR(Annotate(CheckEnvironment(options), "start a worker pool"));
  std::shared_ptr<PoolCore> pool(new PoolCore(std::move(options)));
  PYHOST_RETURN_IF_ERROR(Annotate(pool->Begin(), "start a worker pool"));
  return pool;
}

absl::Status PoolCore::Begin() {
  const Deadline deadline = Deadline::After(options_.start_timeout);
  PYHOST_ASSIGN_OR_RETURN(options_.program, FindProgram(options_.program));
  absl::StatusOr<Session*> session = EnsureEngineSession(options_.program, options_.shared_memory_limit);
  if (!session.ok()) return BlameProgram(session.status(), options_.program);
  session_ = *session;
  if (const uint32_t most = session_->segment().hosts().capacity(); static_cast<uint32_t>(options_.workers) >= most) {
    return absl::ResourceExhaustedError(absl::StrCat(options_.workers, " workers: a session has room for ", most,
                                                     " processes, those of pyhost's own included"));
  }
  PYHOST_ASSIGN_OR_RETURN(client_, CallClient::Create(session_->segment(), session_->me()));
  PYHOST_ASSIGN_OR_RETURN(lanes_, Lanes::Create(session_->segment(), *client_, options_.workers));
  exposed_ = std::make_unique<ExposedFunctions>(session_);
  client_->SetNoticeSink(this);
  absl::StatusOr<std::unique_ptr<Crew>> crew = Crew::Start(session_, client_.get(), lanes_.get(), options_, deadline);
  if (!crew.ok()) return BlameProgram(crew.status(), options_.program);
  crew_ = *std::move(crew);
  crew_->BeginWatching([this] { return LookAfterCalls(); }, [this](HostId worker) { exposed_->DropWorker(worker); });
  return AwaitWorkers(deadline);
}

absl::Status PoolCore::AwaitWorkers(Deadline deadline) {
  absl::Status report;
  const auto settled = [&] {
    MutexLock lock(mutex_);
    report = report_;
    return ready_ >= options_.workers || !report_.ok() || !crew_->failure().ok();
  };
  const absl::Status waited = client_->WaitForAllOr(nullptr, settled, {deadline, nullptr});
  if (absl::IsDeadlineExceeded(waited)) {
    return absl::DeadlineExceededError(absl::StrCat("the workers were not ready after ",
                                                    absl::FormatDuration(options_.start_timeout)));
  }
  PYHOST_RETURN_IF_ERROR(waited);
  return report.ok() ? crew_->failure() : report;
}

void PoolCore::OnNotice(Message notice) {
  const absl::StatusOr<ReplyView> view = ParseReply(notice.payload());
  if (!view.ok()) return;
  if (view->kind == ReplyKind::kRequest) return exposed_->AddRequest(std::move(notice));
  if (view->kind == ReplyKind::kReport) {
    const absl::Status report = ExceptionStatus("a worker could not begin", view->outcome);
    if (crew_ != nullptr) crew_->NoteReport(report);
    MutexLock lock(mutex_);
    report_ = report;
  }
  if (view->kind != ReplyKind::kReady) return;
  exposed_->AddWorker(std::move(notice));
  MutexLock lock(mutex_);
  ++ready_;
}

absl::StatusOr<AnyArray> PoolCore::Allocate(DType dtype, std::vector<int64_t> shape) {
  if (!IsOurs()) return OfAnotherProcess();
  return NewSharedArray(session_->segment(), session_->me(), dtype, std::move(shape));
}

Stats PoolCore::GetStats() {
  Stats stats;
  if (!IsOurs()) return stats;
  for (const Crew::WorkerInfo& worker : crew_->workers()) {
    const WorkerFigures figures = lanes_->FiguresOf(worker.id);
    stats.workers.push_back({.number = worker.number,
                             .pid = worker.pid,
                             .calls = figures.calls,
                             .busy = absl::Nanoseconds(figures.busy_nanos),
                             .running = absl::Nanoseconds(figures.running_nanos)});
  }
  stats.waiting = lanes_->queued();
  stats.outstanding = client_->outstanding();
  stats.replaced = static_cast<uint64_t>(crew_->replaced());
  const SegmentUsage usage = session_->segment().Usage();
  stats.shared_memory_used = usage.used_bytes;
  stats.shared_memory_limit = usage.limit_bytes;
  return stats;
}

absl::Status PoolCore::Shutdown(absl::Duration patience) {
  if (!IsOurs()) return OfAnotherProcess();
  const bool at_once = patience <= absl::ZeroDuration();
  if (!at_once && exposed_->ServingHere()) {
    return absl::FailedPreconditionError(
        "an exposed function cannot wait for the pool's calls to be done: its own script's would never be");
  }
  const std::shared_ptr<PoolCore> alive = shared_from_this();
  const bool was_over = cut_short_;
  shut_down_ = true;
  Flush();
  lanes_->Close();
  const bool orderly = !at_once && AwaitCrew(Deadline::After(patience));
  if (orderly) client_->Drain({Deadline::After(kDrainPatience), nullptr}).IgnoreError();
  const bool by_another = orderly && cut_short_ && !was_over;
  if (!orderly) cut_short_ = true;
  lanes_->Terminate();
  client_->Terminate(absl::CancelledError("the pool was shut down"));
  crew_->Stop();
  if (by_another) return absl::CancelledError("another thread ended the pool at once, before its calls were done");
  if (orderly || at_once) return absl::OkStatus();
  return absl::DeadlineExceededError("workers were still busy when the pool was to be shut down, and were killed");
}

// Scripts that are being finished may still call the engine.
bool PoolCore::AwaitCrew(Deadline deadline) {
  constexpr absl::Duration kBetweenRequests = absl::Milliseconds(2);
  while (!crew_->Close(deadline.AtMost(kBetweenRequests))) {
    if (deadline.Expired()) return false;
    client_->DrainWhatIsThere();
    while (!dropped_ && HasRequestsForHere()) exposed_->Serve();
  }
  return true;
}

void PoolCore::Drop() {
  Shutdown(absl::ZeroDuration()).IgnoreError();
  if (!IsOurs()) return;
  // Each keeps us alive.
  absl::flat_hash_map<const CallGroup*, Async> waiting;
  std::deque<Async> completed;
  MutexLock lock(mutex_);
  dropped_ = true;
  waiting.swap(async_);
  completed.swap(completed_);
}

PoolCore::~PoolCore() {
  if (!IsOurs()) {
    // Nothing of it may be touched: a thread that does not exist here may have been at it.
    static_cast<void>(crew_.release());
    static_cast<void>(exposed_.release());
    static_cast<void>(lanes_.release());
    static_cast<void>(client_.release());
    return;
  }
  if (lanes_ != nullptr) lanes_->Terminate();
  if (client_ != nullptr) client_->Terminate(absl::CancelledError("the pool is gone"));
  crew_.reset();
}

absl::StatusOr<std::shared_ptr<internal::Core>> internal::StartCore(Options options) {
  return PoolCore::Start(std::move(options));
}

}  // namespace pyhost
