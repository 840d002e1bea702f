#include "runtime/engine/pool_core.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/base/mutex_lock.h"
#include "runtime/base/status_util.h"
#include "runtime/engine/reply_error.h"
#include "runtime/sync/thread_token.h"
#include "runtime/values/segment_block.h"

namespace pyhost {
namespace {

// A reply that came, opened.
class ReplyOutcome final : public internal::Outcome {
 public:
  static internal::OutcomeOr Open(Session* session, std::string_view function, Message message) {
    auto outcome = std::make_unique<ReplyOutcome>();
    outcome->function_ = function;
    outcome->message_ = std::move(message);
    PYHOST_ASSIGN_OR_RETURN(const ReplyView view, ParseReply(outcome->message_.payload()));
    outcome->value_ = ReceivedValue::Open(session->segment(), session->me(), outcome->message_, view.outcome);
    if (!outcome->value_.ok()) return outcome->value_.status();
    return outcome;
  }
  std::string_view pickle() const override { return value_->pickle(); }
  DecodeContext context() const override { return value_->context(); }
  absl::Status Named(const absl::Status& error) const override { return Annotate(error, function_); }

 private:
  std::string function_;
  Message message_;
  absl::StatusOr<ReceivedValue> value_ = absl::UnknownError("");
};

constexpr int64_t kBetweenLooks = 2'000'000;  // nanoseconds

int64_t NanosAfter(absl::Duration duration) {
  if (duration == absl::InfiniteDuration()) return Deadlines::kNone;
  const int64_t now = Deadline::MonotonicNanos(), nanos = absl::ToInt64Nanoseconds(duration);
  return nanos >= Deadlines::kNone - now ? Deadlines::kNone : now + nanos;
}

}  // namespace

// ---- Submitting -----------------------------------------------------------------------------------------------

std::unique_ptr<internal::Submission> PoolCore::Submit(std::string_view function,
                                                       std::span<absl::StatusOr<EncodedValue>> arguments,
                                                       const CallOptions& options) {
  auto submission = std::make_unique<PoolSubmission>(shared_from_this(), function);
  submission->refused_ = Register(*submission, arguments.size(), /*notify=*/false);
  if (!submission->refused_.ok()) return submission;
  for (size_t i = 0; i < arguments.size(); ++i) Push(*submission, i, arguments[i], options, kAnyWorker);
  return submission;
}

void PoolCore::SubmitAsync(std::string_view function, absl::StatusOr<EncodedValue> arguments,
                           const CallOptions& options, internal::Completion completion) {
  if (!IsOurs()) return;  // Nor does anybody poll here.
  auto submission = std::make_unique<PoolSubmission>(shared_from_this(), function);
  PoolSubmission& call = *submission;
  call.refused_ = Register(call, 1, /*notify=*/true);
  const bool registered = call.refused_.ok();
  Async async{std::move(submission), std::move(completion)};
  {
    MutexLock lock(mutex_);
    if (dropped_) return;  // Nobody polls any more, and a completion would keep us alive for ever.
    if (registered) {
      async_.emplace(call.group_.get(), std::move(async));
    } else {
      completed_.push_back(std::move(async));
    }
  }
  if (registered) Push(call, 0, arguments, options, kAnyWorker);
}

std::unique_ptr<internal::Submission> PoolCore::Broadcast(std::string_view function,
                                                          absl::StatusOr<EncodedValue> arguments) {
  auto submission = std::make_unique<PoolSubmission>(shared_from_this(), function);
  const auto workers = static_cast<uint64_t>(options_.workers);
  submission->refused_ = Register(*submission, workers, /*notify=*/false);
  if (!submission->refused_.ok()) return submission;
  for (uint64_t worker = 0; worker < workers; ++worker) {
    Push(*submission, worker, arguments, CallOptions(), static_cast<int>(worker));
  }
  return submission;
}

absl::Status PoolCore::OfAnotherProcess() {
  return absl::FailedPreconditionError("the pool is of the process that this one was forked from");
}

absl::Status PoolCore::Register(PoolSubmission& submission, uint64_t count, bool notify) {
  if (!IsOurs()) return Annotate(OfAnotherProcess(), submission.function_);
  if (shut_down_) {
    return absl::FailedPreconditionError(absl::StrCat(submission.function_, ": the pool was shut down"));
  }
  std::shared_ptr<CallGroup> group = client_->NewGroup(notify);
  submission.count_ = count;
  if (count > 0) {
    absl::StatusOr<CallId> first = client_->Register(group, count, 0);
    if (!first.ok()) return Annotate(first.status(), submission.function_);
    submission.first_ = *first;
  }
  submission.group_ = std::move(group);
  return absl::OkStatus();
}

void PoolCore::Push(PoolSubmission& submission, uint64_t index, const absl::StatusOr<EncodedValue>& arguments,
                    const CallOptions& options, int worker) {
  const CallId call = CallId::FromValue(submission.first_.value() + index);
  if (!arguments.ok()) return client_->Settle(call, arguments.status());
  if (options.deadline <= absl::ZeroDuration()) {
    return client_->Settle(call, absl::DeadlineExceededError("its deadline was over when it was submitted"));
  }
  const CallHeader header{.kind = CallKind::kStar,
                          .flags = 0,
                          .reserved = 0,
                          .limit_millis = 0,
                          .function_size = submission.function_.size()};
  const uint64_t buffers = 0;  // Arrays travel by handle.
  const std::array<std::span<const std::byte>, 4> parts = {
      AsBytes(header), std::as_bytes(std::span(submission.function_)), std::as_bytes(std::span(&buffers, 1)),
      std::as_bytes(std::span(arguments->bytes))};
  const std::vector<Handle> handles = arguments->handles.empty() ? std::vector<Handle>() : HandlesOf(*arguments);
  const MessageView message{.parts = parts, .handles = handles, .tag = call.value()};
  const absl::Status pushed =
      worker == kAnyWorker ? lanes_->Push(options.priority, message) : lanes_->PushTo(worker, message);
  if (!pushed.ok()) return client_->Settle(call, pushed);
  if (lanes_->keeps_back()) crew_->LookBefore(Deadline::MonotonicNanos() + kBetweenLooks);
  if (const int64_t deadline = NanosAfter(options.deadline); deadline != Deadlines::kNone) {
    deadlines_.Add(call, deadline);
    crew_->LookBefore(deadline);
  }
}

void PoolCore::Flush() {
  if (IsOurs()) lanes_->Announce();
}

// ---- Outcomes -------------------------------------------------------------------------------------------------

PoolSubmission::~PoolSubmission() {
  if (group_ != nullptr && pool_->IsOurs()) pool_->client_->Abandon(*group_);
}

bool PoolSubmission::Ready() { return group_ == nullptr || !pool_->IsOurs() || pool_->client_->Finished(*group_); }

bool PoolSubmission::Cancel() {
  if (!pool_->IsOurs()) return false;
  uint64_t cancelled = 0;
  for (uint64_t i = 0; i < count_; ++i) {
    const CallId call = CallId::FromValue(first_.value() + i);
    if (!pool_->lanes_->Cancel(call)) continue;
    pool_->client_->Settle(call, absl::CancelledError("the call was cancelled"));
    ++cancelled;
  }
  return count_ > 0 && cancelled == count_;
}

absl::StatusOr<std::vector<internal::OutcomeOr>> PoolSubmission::Await(absl::Duration timeout) {
  if (!refused_.ok()) return refused_;
  if (!pool_->IsOurs()) return absl::FailedPreconditionError(absl::StrCat(function_, ": a call of another process"));
  const absl::Status waited = pool_->AwaitGroup(*group_, Deadline::After(timeout));
  if (!waited.ok()) return Annotate(waited, function_);
  std::vector<Arrival> arrivals = pool_->client_->Take(*group_, count_);
  if (arrivals.size() != count_) {
    return absl::FailedPreconditionError(absl::StrCat(function_, ": its outcome was got before"));
  }
  std::vector<internal::OutcomeOr> outcomes(count_);
  for (Arrival& arrival : arrivals) {
    const uint64_t index = arrival.index;
    outcomes[index] = pool_->Open(function_, CallId::FromValue(first_.value() + index), std::move(arrival));
  }
  return outcomes;
}

absl::Status PoolCore::AwaitGroup(CallGroup& group, Deadline deadline) {
  Flush();
  const auto request = [&] { return HasRequestsForHere(); };
  for (;;) {
    if (absl::Status stuck = WhyStuck(); !stuck.ok() && !client_->Finished(group)) return stuck;
    const absl::Status waited = client_->WaitForAllOr(&group, request, {deadline, nullptr});
    if (!waited.ok()) {
      return absl::IsDeadlineExceeded(waited) ? absl::DeadlineExceededError("no outcome yet") : waited;
    }
    if (client_->Finished(group)) return absl::OkStatus();
    exposed_->Serve();
    Flush();
  }
}

void PoolCore::MakeThisHome() {
  if (home_.load(std::memory_order_relaxed) == ThreadToken()) return;
  MutexLock lock(mutex_);
  home_.store(ThreadToken(), std::memory_order_relaxed);
  home_life_ = ThreadLife::OfThisThread();
}

bool PoolCore::ServesHere() const {
  const uint32_t home = home_.load(std::memory_order_relaxed);
  if (home == 0 || home == ThreadToken()) return true;
  MutexLock lock(mutex_);
  return home_life_.ended();
}

absl::Status PoolCore::WhyStuck() const {
  if (exposed_->serving() < options_.workers) return absl::OkStatus();
  return absl::FailedPreconditionError(
      "it would be waited for for ever: every worker waits for an exposed function, and so for this thread");
}

internal::OutcomeOr PoolCore::Open(std::string_view function, CallId call, Arrival arrival) {
  if (!arrival.status.ok()) return Annotate(arrival.status, function);
  PYHOST_ASSIGN_OR_RETURN(const ReplyView view, ParseReply(arrival.message.payload()));
  if (view.kind == ReplyKind::kError) return ExceptionStatus(function, view.outcome);
  if (view.kind == ReplyKind::kLost) return LostError(function, call, view.outcome);
  return ReplyOutcome::Open(session_, function, std::move(arrival.message));
}

absl::Status PoolCore::LostError(std::string_view function, CallId call, std::span<const std::byte> lost_worker) {
  LostWorker lost;
  if (lost_worker.size() != sizeof(lost)) return absl::DataLossError("malformed report of a lost worker");
  std::memcpy(&lost, lost_worker.data(), sizeof(lost));
  const std::string fault = crew_->FaultOf(HostId::FromValue(lost.host));
  if (deadlines_.TakeEnded(call)) return OverdueStatus(function, lost.pid, fault);
  return LostStatus(function, lost, fault);
}

int64_t PoolCore::LookAfterCalls() {
  const bool left = lanes_->Refill();
  const std::vector<CallId> over = deadlines_.TakeOver(Deadline::MonotonicNanos());
  if (!over.empty()) client_->DrainWhatIsThere();  // What was answered in time is not looked for among the workers.
  for (CallId call : over) {
    if (client_->IsOutstanding(call)) EndOverdue(call);
  }
  return left ? std::min(deadlines_.next(), Deadline::MonotonicNanos() + kBetweenLooks) : deadlines_.next();
}

void PoolCore::EndOverdue(CallId call) {
  if (lanes_->Cancel(call)) {
    return client_->Settle(call, absl::DeadlineExceededError("no worker was free before the call's deadline"));
  }
  // Before its worker is ended: the loss may be reported at once.
  deadlines_.MarkEnded(call);
  if (crew_->EndStuck(call)) return;
  deadlines_.TakeEnded(call);
  deadlines_.Add(call, Deadline::MonotonicNanos() + kBetweenLooks);  // Its reply is on the way, or its loss.
}

// ---- Polling ----------------------------------------------------------------------------------------------------

absl::Status PoolCore::Expose(std::string_view name, internal::ExposedFunction function) {
  if (!IsOurs()) return OfAnotherProcess();
  return exposed_->Expose(name, std::move(function));
}

size_t PoolCore::Poll(absl::Duration budget) {
  if (!IsOurs()) return 0;
  const std::shared_ptr<PoolCore> alive = shared_from_this();
  MakeThisHome();
  Flush();
  // Not immediate: that would be over before the first thing.
  const Deadline deadline = Deadline::After(std::max(budget, absl::Nanoseconds(1)));
  size_t done = 0;
  bool drained = false;
  do {
    drained = client_->DrainSome();
    done += Complete(deadline);
  } while (drained && !dropped_ && !deadline.Expired());
  done += DeliverOutput();
  Flush();
  return done;
}

size_t PoolCore::Complete(Deadline deadline) {
  size_t done = 0;
  do {
    if (exposed_->Serve()) {
      ++done;
      continue;
    }
    Async async;
    if (!NextCompleted(&async)) break;
    absl::StatusOr<std::vector<internal::OutcomeOr>> outcomes = async.submission->Await(absl::ZeroDuration());
    async.completion(outcomes.ok() ? std::move(outcomes->front()) : internal::OutcomeOr(outcomes.status()));
    ++done;
  } while (!dropped_ && !deadline.Expired());
  return done;
}

bool PoolCore::NextCompleted(Async* completed) {
  const std::shared_ptr<CallGroup> finished = client_->TakeFinished();
  MutexLock lock(mutex_);
  if (auto async = async_.extract(finished.get())) completed_.push_back(std::move(async.mapped()));
  if (completed_.empty()) return false;
  *completed = std::move(completed_.front());
  completed_.pop_front();
  return true;
}

size_t PoolCore::DeliverOutput() {
  size_t done = 0;
  for (const auto& [worker, text] : crew_->output().Take()) {
    if (dropped_) break;
    options_.output.on_output(worker, text);
    ++done;
  }
  return done;
}

}  // namespace pyhost
