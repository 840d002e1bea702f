// ExposedFunctions: what scripts can call of the engine, and the requests that wait to be served.
//
// A request is a notice of its worker's; the answer goes into the queue that the worker named when it began
// (modules/native/engine_link.h has both formats).
//
// Thread-safe; functions are called by Serve() alone, with no lock held.

#ifndef PYHOST_RUNTIME_ENGINE_EXPOSED_FUNCTIONS_H_
#define PYHOST_RUNTIME_ENGINE_EXPOSED_FUNCTIONS_H_

#include <atomic>
#include <cstddef>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "pyhost/internal/core.h"
#include "runtime/base/ids.h"
#include "runtime/queue/queue.h"
#include "runtime/session/session.h"

namespace pyhost {

class ExposedFunctions {
 public:
  explicit ExposedFunctions(Session* session) : session_(session) {}

  // InvalidArgument for an empty name.
  absl::Status Expose(std::string_view name, internal::ExposedFunction function);

  // `ready`: a worker's notice that it has begun, which names its queue.
  void AddWorker(Message ready);
  void DropWorker(HostId worker);
  void AddRequest(Message request);

  bool HasRequests() const { return waiting_.load(std::memory_order_acquire) != 0; }
  // Runs one request.  False: there was none.
  bool Serve();
  // Requests being served now, on all threads: each has a worker that waits.
  int serving() const { return serving_.load(); }
  // The calling thread is serving one.
  bool ServingHere() const;

 private:
  absl::StatusOr<EncodedValue> Run(Message& request, uint64_t* id);
  absl::Status Answer(HostId worker, uint64_t id, const absl::StatusOr<EncodedValue>& result);

  Session* const session_;
  std::atomic<size_t> waiting_{0};
  std::atomic<int> serving_{0};
  absl::Mutex mutex_;
  absl::flat_hash_map<std::string, std::shared_ptr<internal::ExposedFunction>> functions_ ABSL_GUARDED_BY(mutex_);
  std::deque<Message> requests_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<uint32_t, std::shared_ptr<Message>> workers_ ABSL_GUARDED_BY(mutex_);  // by HostId
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_ENGINE_EXPOSED_FUNCTIONS_H_
