// Tickets: which calls of a pool may still be cancelled.  A table in the pool's block, by CallId modulo its size.
//
//   word = CallId << 2 | state
//
//   caller  Issue      x -> waiting          before the call is pushed
//   caller  Cancel     waiting -> cancelled  true: no worker will run it
//   worker  Take       waiting -> taken      true: run it
//                      cancelled -> 0        false: drop it
//
// Exactly one of Cancel and Take gets a waiting call.  A call whose word belongs to another (more calls are outstanding
// than there are words) cannot be cancelled and is always run: the newest ones have the words.
//
// Thread- and process-safe, but Issue, Revoke and Cancel are the caller's alone, one thread at a time.  Owns nothing.

#ifndef PYHOST_RUNTIME_BROKER_TICKETS_H_
#define PYHOST_RUNTIME_BROKER_TICKETS_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "runtime/broker/call_frame.h"

namespace pyhost {

class Tickets {
 public:
  using Word = std::atomic<uint64_t>;

  Tickets() = default;  // no call can be cancelled
  explicit Tickets(std::span<Word> words) : words_(words) {}

  void Issue(CallId call) {
    if (words_.empty()) return;
    Word& word = WordOf(call);
    const uint64_t before = word.load(std::memory_order_relaxed);
    // An older call that was cancelled is still on its way to a worker, who must see it.
    if (StateOf(before) == kCancelled && before >> kStateBits < call.value()) return;
    word.store(Make(call, kWaiting), std::memory_order_release);
  }

  // The call whose ticket Issue(call) would take away, while that still matters: it waits, or was cancelled and a worker is
  // to see that.  None: there is none.
  CallId HolderOf(CallId call) const {
    if (words_.empty()) return {};
    const uint64_t word = WordOf(call).load(std::memory_order_acquire);
    const CallId holder = CallId::FromValue(word >> kStateBits);
    return StateOf(word) == kTaken || holder == call ? CallId() : holder;
  }

  // For a call that no worker will look at any more: it died on the way.
  void Revoke(CallId call) {
    if (!Change(call, kWaiting, 0)) Change(call, kCancelled, 0);
  }

  bool Cancel(CallId call) { return !words_.empty() && Change(call, kWaiting, Make(call, kCancelled)); }

  bool Take(CallId call) {
    if (words_.empty() || Change(call, kWaiting, Make(call, kTaken))) return true;
    return !Change(call, kCancelled, 0);
  }

  bool Taken(CallId call) const {
    return !words_.empty() && WordOf(call).load(std::memory_order_acquire) == Make(call, kTaken);
  }

 private:
  // Values in shared memory: never renumbered.
  static constexpr uint64_t kWaiting = 0;
  static constexpr uint64_t kTaken = 1;
  static constexpr uint64_t kCancelled = 2;
  static constexpr int kStateBits = 2;

  static uint64_t Make(CallId call, uint64_t state) { return call.value() << kStateBits | state; }
  static uint64_t StateOf(uint64_t word) { return word & ((1u << kStateBits) - 1); }
  Word& WordOf(CallId call) const { return words_[call.value() % words_.size()]; }
  bool Change(CallId call, uint64_t from, uint64_t to) {
    uint64_t expected = Make(call, from);
    return WordOf(call).compare_exchange_strong(expected, to, std::memory_order_acq_rel);
  }

  std::span<Word> words_;
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_BROKER_TICKETS_H_
