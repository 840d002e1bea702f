#include "runtime/engine/pool_core.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/base/mutex_lock.h"
#include "runtime/base/status_util.h"
#include "runtime/engine/engine_session.h"
#include "runtime/engine/program.h"
#include "runtime/engine/reply_error.h"
#include "runtime/os/cpu.h"

namespace pyhost {
namespace {

// As modules/native/pickling.h has it: u64 count | count x u64 {size:63, readonly:1} | pickle.
constexpr uint64_t kReadOnly = uint64_t{1} << 63;
// So many of the newest calls can be cancelled and have a deadline while they wait.
constexpr uint32_t kCancellable = 64 * 1024;

}  // namespace

absl::StatusOr<std::unique_ptr<Reply>> Reply::Parse(Message message) {
  auto reply = std::make_unique<Reply>();
  reply->message_ = std::move(message);
  PYHOST_ASSIGN_OR_RETURN(ReplyView view, ParseReply(reply->message_.payload()));
  std::span<const std::byte> payload = view.outcome;
  uint64_t count = 0;
  if (payload.size() < sizeof(count)) return absl::DataLossError("malformed reply: no header");
  std::memcpy(&count, payload.data(), sizeof(count));
  payload = payload.subspan(sizeof(count));
  if (count > payload.size() / sizeof(uint64_t) || count > reply->message_.handles().size()) {
    return absl::DataLossError("malformed reply: its header is cut off");
  }
  for (uint64_t i = 0; i < count; ++i) {
    uint64_t size = 0;
    std::memcpy(&size, payload.data() + i * sizeof(size), sizeof(size));
    reply->buffers_.push_back({reply->message_.handles()[i], size & ~kReadOnly, (size & kReadOnly) != 0});
  }
  payload = payload.subspan(count * sizeof(uint64_t));
  reply->pickle_ = {reinterpret_cast<const char*>(payload.data()), payload.size()};
  return reply;
}

// ---- A call -----------------------------------------------------------------------------------------------------

PoolCall::~PoolCall() {
  if (group_ != nullptr) pool_->client_->Abandon(*group_);
}

bool PoolCall::Ready() { return group_ == nullptr || pool_->client_->Finished(*group_); }

absl::StatusOr<std::unique_ptr<Reply>> PoolCall::Await(Deadline deadline) {
  if (!refused_.ok()) return refused_;
  const absl::Status waited = pool_->client_->WaitForArrival(*group_, {deadline, nullptr});
  if (!waited.ok()) return Annotate(waited, function_);
  return pool_->TakeOutcome(*this);
}

absl::StatusOr<std::unique_ptr<Reply>> PoolCore::TakeOutcome(PoolCall& call) {
  std::vector<Arrival> arrivals = client_->Take(*call.group_, 1);
  if (arrivals.empty()) {
    return absl::FailedPreconditionError(absl::StrCat(call.function_, ": its outcome was taken before"));
  }
  if (!arrivals[0].status.ok()) return Annotate(arrivals[0].status, call.function_);
  PYHOST_ASSIGN_OR_RETURN(ReplyView view, ParseReply(arrivals[0].message.payload()));
  if (view.kind == ReplyKind::kError) return ExceptionStatus(call.function_, view.outcome);
  if (view.kind == ReplyKind::kLost) return LostStatus(call.function_, view.outcome);
  return Reply::Parse(std::move(arrivals[0].message));
}

std::unique_ptr<PoolCall> PoolCore::Submit(std::string_view function, std::string_view pickle,
                                           std::span<const BufferRef> buffers, std::span<const Handle> handles) {
  auto call = std::make_unique<PoolCall>(shared_from_this(), function);
  call->group_ = client_->NewGroup();
  call->refused_ = Push(*call, pickle, buffers, handles);
  if (!call->refused_.ok()) call->group_ = nullptr;
  return call;
}

absl::Status PoolCore::Push(PoolCall& call, std::string_view pickle, std::span<const BufferRef> buffers,
                            std::span<const Handle> handles) {
  if (shut_down_) return absl::FailedPreconditionError(absl::StrCat(call.function_, ": the pool was shut down"));
  PYHOST_ASSIGN_OR_RETURN(call.id_, client_->Register(call.group_, 1, 0));
  const CallHeader header{.kind = CallKind::kStar,
                          .flags = 0,
                          .reserved = 0,
                          .reserved2 = 0,
                          .function_size = call.function_.size()};
  std::vector<uint64_t> sizes = {buffers.size()};
  for (const BufferRef& buffer : buffers) sizes.push_back(buffer.size | (buffer.readonly ? kReadOnly : 0));
  std::vector<Handle> all;
  for (const BufferRef& buffer : buffers) all.push_back(buffer.handle);
  all.insert(all.end(), handles.begin(), handles.end());
  const std::span<const std::byte> parts[] = {AsBytes(header), std::as_bytes(std::span(call.function_)),
                                              std::as_bytes(std::span(sizes)), std::as_bytes(std::span(pickle))};
  const MessageView message{.parts = parts, .handles = all, .tag = call.id_.value()};
  absl::Status status;
  client_->Push({&message, 1}, Wait::Try(), &status);
  if (!status.ok()) client_->Withdraw(call.id_, 1);
  return status.ok() ? status : Annotate(status, call.function_);
}

// ---- Life ---------------------------------------------------------------------------------------------------------

absl::StatusOr<std::shared_ptr<PoolCore>> PoolCore::Start(Options options) {
  if (options.workers < 0) return absl::InvalidArgumentError(absl::StrCat("a pool of ", options.workers, " workers"));
  if (options.workers == 0) options.workers = UsableCores();
  std::shared_ptr<PoolCore> pool(new PoolCore(std::move(options)));
  PYHOST_RETURN_IF_ERROR(Annotate(pool->Begin(), "start a worker pool"));
  return pool;
}

absl::Status PoolCore::Begin() {
  const Deadline deadline = Deadline::After(options_.start_timeout);
  PYHOST_ASSIGN_OR_RETURN(const std::string program, FindProgram(options_.program));
  PYHOST_ASSIGN_OR_RETURN(session_, EnsureEngineSession(program, options_.shared_memory_limit));
  PYHOST_ASSIGN_OR_RETURN(client_, CallClient::Create(session_->segment(), session_->me(), kCancellable));
  client_->SetNoticeSink(this);
  PYHOST_ASSIGN_OR_RETURN(crew_, Crew::Start(session_, client_.get(), options_, deadline));
  return AwaitWorkers(deadline);
}

absl::Status PoolCore::AwaitWorkers(Deadline deadline) {
  absl::Status report;
  const auto settled = [&] {
    MutexLock lock(mutex_);
    report = report_;
    return ready_ >= options_.workers || !report_.ok() || !crew_->failure().ok();
  };
  PYHOST_RETURN_IF_ERROR(client_->WaitForArrivalOr(nullptr, settled, {deadline, nullptr}));
  return report.ok() ? crew_->failure() : report;
}

void PoolCore::OnNotice(Message notice) {
  const absl::StatusOr<ReplyView> view = ParseReply(notice.payload());
  if (!view.ok()) return;
  MutexLock lock(mutex_);
  if (view->kind == ReplyKind::kReady) ++ready_;
  if (view->kind == ReplyKind::kReport) report_ = ExceptionStatus("a worker could not begin", view->outcome);
}

absl::Status PoolCore::Shutdown(Deadline deadline) {
  shut_down_ = true;
  client_->Close();
  const bool orderly = !deadline.is_immediate() && crew_->Close(deadline);
  if (orderly) client_->Drain(Wait::Try()).IgnoreError();
  client_->Terminate(absl::CancelledError("the pool was shut down"));
  crew_->Stop();
  if (orderly || deadline.is_immediate()) return absl::OkStatus();
  return absl::DeadlineExceededError("workers were still busy when the pool was to be shut down, and were killed");
}

PoolCore::~PoolCore() {
  if (client_ == nullptr) return;
  client_->Terminate(absl::CancelledError("the pool is gone"));
  crew_.reset();
}

}  // namespace pyhost
