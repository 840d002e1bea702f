// Attention: whether a call that was just pushed will be seen without a wake-up.
//
// A wake-up costs the caller 5 to 20 us in the kernel, a small call less than one.  With a caller that submits small
// calls one by one, one worker is quick enough for all of them, and hardly ever asleep: in its function, or between two
// looks at the queue.  Yet another one sleeps, and would be woken for nothing, again and again.  So a caller wakes
// nobody if both of these hold:
//
//   attentive   a worker took a call less than kAttentive ago, and has not gone to sleep since
//   dozing      another worker sleeps for a short time only, and looks by itself then
//
// Is the first one's call long after all, the second comes, less than kLongestNap later.  When calls pile up, the
// caller wakes as usual.
//
//   worker   takes a call     Took()
//            finds none       GivesUp(), looks again, sleeps; if BeginNap(): for the nap, then EndNap(), and looks again
//   caller   pushes, looks whether somebody sleeps (a full fence), asks Covers()
//
// No call is forgotten: what a worker takes back (GivesUp, EndNap) it takes back before it looks, with a full fence;
// the caller asks after it has pushed.  A promise of the dead expires.
//
// Thread- and process-safe.  All zero is a valid start: nobody is attentive.

#ifndef PYHOST_RUNTIME_BROKER_ATTENTION_H_
#define PYHOST_RUNTIME_BROKER_ATTENTION_H_

#include <atomic>
#include <cstdint>
#include <type_traits>

namespace pyhost {

class Attention {
 public:
  static constexpr int64_t kAttentive = 10'000;  // nanoseconds, as all here; of CLOCK_MONOTONIC
  static constexpr int64_t kFirstNap = 100'000;
  static constexpr int64_t kLongestNap = 400'000;

  // True: said so; not when somebody did just before, for other workers have this line as well.
  bool Took(int64_t now) {
    if (IsWithin(active_.load(std::memory_order_relaxed), now - kAttentive / 4, now)) return false;
    active_.store(now, std::memory_order_relaxed);
    return true;
  }
  // Takes back what Took(mine) said, unless another has said it since.
  void GivesUp(int64_t mine) { active_.compare_exchange_strong(mine, 0, std::memory_order_seq_cst); }

  // False: another one dozes; one is enough.
  bool BeginNap(int64_t now, int64_t until) {
    int64_t other = nap_until_.load(std::memory_order_relaxed);
    return (other < now || other > now + kLongestNap) && nap_until_.compare_exchange_strong(other, until);
  }
  void EndNap(int64_t until) {
    nap_until_.compare_exchange_strong(until, 0, std::memory_order_seq_cst);
  }

  bool Covers(int64_t now) const {
    return IsWithin(active_.load(std::memory_order_relaxed), now - kAttentive, now + kAttentive) &&
           IsWithin(nap_until_.load(std::memory_order_relaxed), now, now + kLongestNap);
  }

 private:
  // What is nonsense covers nothing.
  static bool IsWithin(int64_t time, int64_t first, int64_t last) { return time > first && time <= last; }

  std::atomic<int64_t> active_;     // about when a worker last took a call; 0 = somebody went to sleep since
  std::atomic<int64_t> nap_until_;  // when the one that dozes looks; 0 = none does
};
static_assert(std::is_standard_layout_v<Attention> && sizeof(Attention) == 16);

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_BROKER_ATTENTION_H_
