#include "runtime/engine/exposed_functions.h"

#include <array>
#include <cstring>
#include <exception>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "runtime/base/mutex_lock.h"
#include "runtime/base/status_util.h"
#include "runtime/broker/call_frame.h"
#include "runtime/values/segment_block.h"

namespace pyhost {
namespace {

// An exception is the engine's way to fail: the script is told, and the thread that polls goes on.
absl::StatusOr<EncodedValue> CallContained(const internal::ExposedFunction& function, const ReceivedValue& arguments) {
  try {
    return function(arguments.pickle(), arguments.context());
  } catch (const std::exception& error) {
    return absl::InternalError(absl::StrCat("it threw an exception: ", error.what()));
  } catch (...) {
    return absl::InternalError("it threw an exception that is no std::exception");
  }
}

// What the thread is serving, for the time of a scope; within one, others may begin.
class Serving {
 public:
  explicit Serving(const ExposedFunctions* served) : served_(served), outer_(std::exchange(innermost, this)) {}
  ~Serving() { innermost = outer_; }
  Serving(const Serving&) = delete;
  Serving& operator=(const Serving&) = delete;

  static bool Includes(const ExposedFunctions* functions) {
    for (const Serving* one = innermost; one != nullptr; one = one->outer_) {
      if (one->served_ == functions) return true;
    }
    return false;
  }

 private:
  static thread_local Serving* innermost;
  const ExposedFunctions* const served_;
  Serving* const outer_;
};
thread_local Serving* Serving::innermost = nullptr;

}  // namespace

bool ExposedFunctions::ServingHere() const { return Serving::Includes(this); }

absl::Status ExposedFunctions::Expose(std::string_view name, internal::ExposedFunction function) {
  if (name.empty()) return absl::InvalidArgumentError("Expose: a function without a name");
  auto shared = std::make_shared<internal::ExposedFunction>(std::move(function));
  MutexLock lock(mutex_);
  functions_[std::string(name)] = std::move(shared);
  return absl::OkStatus();
}

void ExposedFunctions::AddWorker(Message ready) {
  const uint32_t worker = ready.sender().value();
  MutexLock lock(mutex_);
  workers_[worker] = std::make_shared<Message>(std::move(ready));
}

void ExposedFunctions::DropWorker(HostId worker) {
  std::shared_ptr<Message> dropped;  // Freed after the lock.
  MutexLock lock(mutex_);
  auto found = workers_.find(worker.value());
  if (found == workers_.end()) return;
  dropped = std::move(found->second);
  workers_.erase(found);
}

void ExposedFunctions::AddRequest(Message request) {
  MutexLock lock(mutex_);
  requests_.push_back(std::move(request));
  waiting_.store(requests_.size(), std::memory_order_release);
}

bool ExposedFunctions::Serve() {
  Message request;
  {
    MutexLock lock(mutex_);
    if (requests_.empty()) return false;
    request = std::move(requests_.front());
    requests_.pop_front();
    waiting_.store(requests_.size(), std::memory_order_release);
  }
  ++serving_;
  const absl::Cleanup done = [this] { --serving_; };
  const Serving here(this);
  uint64_t id = 0;
  const absl::StatusOr<EncodedValue> result = Run(request, &id);
  const absl::Status answered = Answer(request.sender(), id, result);
  // A result that there is no memory for: the script is told that instead.
  if (!answered.ok() && !absl::IsNotFound(answered)) Answer(request.sender(), id, answered).IgnoreError();
  return true;
}

absl::StatusOr<EncodedValue> ExposedFunctions::Run(Message& request, uint64_t* id) {
  PYHOST_ASSIGN_OR_RETURN(const ReplyView view, ParseReply(request.payload()));
  std::span<const std::byte> payload = view.outcome;
  std::array<uint64_t, 2> head = {};
  if (payload.size() < sizeof(head)) return absl::DataLossError("malformed request: no header");
  std::memcpy(head.data(), payload.data(), sizeof(head));
  payload = payload.subspan(sizeof(head));
  *id = head[0];
  if (head[1] > payload.size()) return absl::DataLossError("malformed request: its name is cut off");
  const std::string name(reinterpret_cast<const char*>(payload.data()), head[1]);
  std::shared_ptr<internal::ExposedFunction> function;
  {
    MutexLock lock(mutex_);
    if (auto found = functions_.find(name); found != functions_.end()) function = found->second;
  }
  if (function == nullptr) return absl::NotFoundError(absl::StrCat("the engine has exposed no function '", name, "'"));
  PYHOST_ASSIGN_OR_RETURN(const ReceivedValue arguments,
                          ReceivedValue::Open(session_->segment(), session_->me(), request, payload.subspan(head[1])));
  absl::StatusOr<EncodedValue> result = CallContained(*function, arguments);
  if (!result.ok()) return Annotate(result.status(), name);
  return result;
}

absl::Status ExposedFunctions::Answer(HostId worker, uint64_t id, const absl::StatusOr<EncodedValue>& result) {
  std::shared_ptr<Message> ready;
  {
    MutexLock lock(mutex_);
    if (auto found = workers_.find(worker.value()); found != workers_.end()) ready = found->second;
  }
  if (ready == nullptr || ready->handles().empty()) return absl::NotFoundError("the worker has ended");
  PYHOST_ASSIGN_OR_RETURN(Queue queue, Queue::Open(session_->segment(), session_->me(), ready->handles()[0]));
  // u64 code | message, or u64 code 0 | u64 count of out-of-band buffers, none | pickle
  const std::array<uint64_t, 2> head = {static_cast<uint64_t>(result.status().code()), 0};
  const std::string message(result.status().message());
  const bool ok = result.ok();
  const std::array<std::span<const std::byte>, 2> parts = {
      std::as_bytes(std::span(head).first(ok ? 2 : 1)), std::as_bytes(std::span(ok ? result->bytes : message))};
  const std::vector<Handle> handles = ok ? HandlesOf(*result) : std::vector<Handle>();
  return queue.Push({.parts = parts, .handles = handles, .tag = id}, Wait::Try());
}

}  // namespace pyhost
