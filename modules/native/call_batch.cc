#include "modules/native/call_batch.h"

#include <cstring>
#include <utility>

#include "absl/container/inlined_vector.h"
#include "modules/native/gil_wait.h"
#include "modules/native/scalar_pickle.h"
#include "modules/native/session_access.h"
#include "modules/native/status.h"
#include "runtime/segment/handle_refs.h"
#include "runtime/segment/object_table.h"

namespace pyhost::native {

// ---- Function -----------------------------------------------------------------------------------------------------

Function::~Function() {
  Session* session = memory_ ? Session::Current() : nullptr;
  if (session != nullptr) session->segment().refs().Release(memory_, session->me());
}

void Function::Use(PyObject* callable, std::shared_ptr<const std::string> pickle) {
  callable_ = callable;
  known_ = std::move(pickle);
  size_ = known_->size();
  global_ = true;
}

bool Function::Prepare(ModuleState* state, PyObject* callable) {
  callable_ = callable;
  Pickled pickled;
  if (!Pickle(state, callable, &pickled)) return false;
  if (!pickled.handles().empty()) {
    inside_ = true;
    return true;
  }
  for (const auto& part : pickled.parts().subspan(1)) {  // Without the header: there are no buffers.
    pickle_.append(reinterpret_cast<const char*>(part.data()), part.size());
  }
  size_ = pickle_.size();
  global_ = IsGlobalReference(pickle());
  return size_ <= kMaxInlineBytes || MoveToMemory();
}

bool Function::MoveToMemory() {
  Session* session = RequireSession();
  if (session == nullptr) return false;
  Segment& segment = session->segment();
  absl::StatusOr<Handle> handle = segment.objects().Create(ObjectKind::kMemory, size_, session->me());
  if (!handle.ok()) {
    SetError(handle.status());
    return false;
  }
  segment.refs().Adopt(*handle, session->me());
  memory_ = *handle;
  absl::StatusOr<std::span<std::byte>> block = segment.objects().Block(memory_);
  if (!block.ok()) {
    SetError(block.status());
    return false;
  }
  std::memcpy(block->data(), pickle_.data(), size_);
  pickle_.clear();
  return true;
}

// ---- CallBatch ----------------------------------------------------------------------------------------------------

void CallBatch::AppendHead(CallKind kind) {
  CallHeader header{};
  header.kind = kind;
  header.limit_millis = options_.limit_millis;
  if (options_.attempts > 1) header.flags = kMayRunAgain;
  if (inside_) {
    header.flags |= kFunctionInside;
  } else {
    header.flags |= function_.memory() ? kFunctionInMemory : uint8_t{0};
    header.function_size = function_.size();
  }
  heads_.append(reinterpret_cast<const char*>(&header), sizeof(header));
  const std::span<const std::byte> pickle = inside_ ? std::span<const std::byte>() : function_.pickle();
  heads_.append(reinterpret_cast<const char*>(pickle.data()), pickle.size());
}

bool CallBatch::Add(ModuleState* state, CallKind kind, CallId id, PyObject* arguments) {
  constexpr size_t kMostCalls = 192;  // what a call of a few numbers takes: allocated once
  if (heads_.capacity() < kMostCalls) heads_.reserve(kMostCalls);
  Entry entry;
  entry.id = id;
  entry.head_begin = heads_.size();
  AppendHead(kind);
  if (inside_ || !AppendScalarPickle(arguments, &heads_)) {
    PyRef both = inside_ ? PyRef::Steal(PyTuple_Pack(2, function_.callable(), arguments)) : PyRef();
    if (inside_ && !both) return false;
    entry.arguments.emplace();
    if (!Pickle(state, inside_ ? both.get() : arguments, &*entry.arguments)) {
      heads_.resize(entry.head_begin);
      return false;
    }
    bytes_ += entry.arguments->size();
  }
  entry.head_size = heads_.size() - entry.head_begin;
  bytes_ += entry.head_size;
  entries_.push_back(std::move(entry));
  return true;
}

absl::Status CallBatch::Push(std::span<const MessageView> messages, size_t* pushed) {
  GilWait gil;
  absl::Status status;
  *pushed = client_.Push(messages, gil.Until(Deadline::Never()), &status);
  return status;
}

absl::Status CallBatch::Flush() {
  // All pieces in one array, then all messages as slices of it.
  absl::InlinedVector<std::span<const std::byte>, 64> parts;
  absl::InlinedVector<Handle, 16> handles;
  absl::InlinedVector<std::pair<size_t, size_t>, 32> ends;  // of each entry's parts and handles
  const std::span<const std::byte> heads = std::as_bytes(std::span(heads_));
  for (const Entry& entry : entries_) {
    parts.push_back(heads.subspan(entry.head_begin, entry.head_size));
    if (entry.arguments) {
      parts.insert(parts.end(), entry.arguments->parts().begin(), entry.arguments->parts().end());
      handles.insert(handles.end(), entry.arguments->handles().begin(), entry.arguments->handles().end());
    }
    if (!inside_ && function_.memory()) handles.push_back(function_.memory());
    ends.emplace_back(parts.size(), handles.size());
  }
  absl::InlinedVector<MessageView, 32> messages;
  std::pair<size_t, size_t> begin = {0, 0};
  for (size_t i = 0; i < entries_.size(); ++i) {
    messages.push_back({.parts = std::span(parts).subspan(begin.first, ends[i].first - begin.first),
                        .handles = std::span(handles).subspan(begin.second, ends[i].second - begin.second),
                        .tag = entries_[i].id.value()});
    begin = ends[i];
  }
  if (options_.attempts > 1) {
    for (size_t i = 0; i < entries_.size(); ++i) client_.Keep(entries_[i].id, messages[i], options_.attempts);
  }
  size_t pushed = 0;
  absl::Status status = Push(messages, &pushed);
  for (size_t i = pushed; i < entries_.size(); ++i) client_.Withdraw(entries_[i].id, 1);
  entries_.clear();
  heads_.clear();
  bytes_ = 0;
  return status;
}

}  // namespace pyhost::native
