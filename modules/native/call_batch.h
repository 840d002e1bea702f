// CallBatch: pickled calls on their way into a pool's call queue.
//
//   Function function;  function.Prepare(state, f)
//   CallBatch batch(client, function)
//   batch.Add(state, CallKind::kOne, id, x)  ...        pickles
//   batch.Flush()                                        pushes all that were added, in order, at once
//
// Lives on the stack of one thread that holds the GIL.

#ifndef PYHOST_MODULES_NATIVE_CALL_BATCH_H_
#define PYHOST_MODULES_NATIVE_CALL_BATCH_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "modules/native/module_state.h"
#include "modules/native/pickling.h"
#include "modules/native/python_ref.h"
#include "runtime/broker/call_client.h"
#include "runtime/broker/call_frame.h"

namespace pyhost::native {

// A callable, pickled for the calls of one submission.
class Function {
 public:
  static constexpr size_t kMaxInlineBytes = 1024;  // a larger pickle lies in the segment once, not in every frame

  Function() = default;
  Function(const Function&) = delete;
  Function& operator=(const Function&) = delete;
  ~Function();

  // False with the Python error that pickling raised.
  bool Prepare(ModuleState* state, PyObject* callable);
  // From a pickle made before, of a global reference.
  void Use(PyObject* callable, std::shared_ptr<const std::string> pickle);

  PyObject* callable() const { return callable_; }
  bool is_global() const { return global_; }
  // It carries handles (queues, locks, large arrays): it must be pickled together with the arguments.
  bool must_go_inside() const { return inside_; }
  std::span<const std::byte> pickle() const { return std::as_bytes(std::span(known_ ? *known_ : pickle_)); }
  size_t size() const { return size_; }
  Handle memory() const { return memory_; }

 private:
  bool MoveToMemory();

  PyObject* callable_ = nullptr;  // borrowed from the submitter
  std::string pickle_;            // empty when in memory
  std::shared_ptr<const std::string> known_;  // instead of pickle_
  size_t size_ = 0;
  Handle memory_;  // ours in segment.refs()
  bool global_ = false;
  bool inside_ = false;
};

// How the calls of a submission are to be run.
struct CallOptions {
  uint32_t limit_millis = 0;  // how long the function may run, for each item; 0 = no limit
  uint32_t attempts = 1;      // how often a call may be run that is lost with its worker
};

class CallBatch {
 public:
  CallBatch(CallClient& client, const Function& function, bool inside, const CallOptions& options)
      : client_(client), function_(function), inside_(inside), options_(options) {}

  // Pickles one call.  False with the Python error that pickling raised; nothing was added then.
  bool Add(ModuleState* state, CallKind kind, CallId id, PyObject* arguments);
  size_t size() const { return entries_.size(); }
  size_t bytes() const { return bytes_; }
  // Pushes; empty afterwards.  On an error the calls that were not pushed are withdrawn.
  absl::Status Flush();

 private:
  struct Entry {
    CallId id;
    size_t head_begin = 0, head_size = 0;  // in heads_: header, function, and the arguments when scalar
    std::optional<Pickled> arguments;
  };
  void AppendHead(CallKind kind);
  absl::Status Push(std::span<const MessageView> messages, size_t* pushed);

  CallClient& client_;
  const Function& function_;
  const bool inside_;
  const CallOptions options_;
  size_t bytes_ = 0;
  std::string heads_;
  absl::InlinedVector<Entry, 1> entries_;  // one is the most common
};

}  // namespace pyhost::native

#endif  // PYHOST_MODULES_NATIVE_CALL_BATCH_H_
