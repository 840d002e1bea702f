// Strong ids that cross process boundaries.
//
// Values of these types are stored in shared memory and in frames: a layout change needs a new
// kLayoutVersion (segment/layout.h).  All are trivially copyable, 0 means "none" everywhere.

#ifndef PYHOST_RUNTIME_BASE_IDS_H_
#define PYHOST_RUNTIME_BASE_IDS_H_

#include <cstdint>
#include <string>

namespace pyhost {

// Names one life of one slot of the host table.  A slot that is used again gets the next generation, so
// the id of a dead host never names its successor.  30 bits: {generation:18, slot:12}; the generation
// starts at 1, hence a valid id is never 0.  Fits a lock word beside two flag bits.
class HostId {
 public:
  static constexpr int kSlotBits = 12;
  static constexpr uint32_t kMaxSlots = 1u << kSlotBits;
  static constexpr uint32_t kMaxGeneration = (1u << 18) - 1;

  constexpr HostId() = default;
  constexpr HostId(uint32_t slot, uint32_t generation) : value_(generation << kSlotBits | slot) {}
  static constexpr HostId FromValue(uint32_t value) {
    HostId id;
    id.value_ = value;
    return id;
  }

  constexpr uint32_t value() const { return value_; }
  constexpr uint32_t slot() const { return value_ & (kMaxSlots - 1); }
  constexpr uint32_t generation() const { return value_ >> kSlotBits; }
  constexpr explicit operator bool() const { return value_ != 0; }
  friend constexpr bool operator==(HostId, HostId) = default;

  // "host 3.1" (slot.generation), or "no host".
  std::string ToString() const;

 private:
  uint32_t value_ = 0;
};

enum class ObjectKind : uint8_t {
  kNone = 0,
  kMemory = 1,     // a block of bytes
  kChunk = 2,      // ring memory, owned by a queue
  kQueue = 3,
  kMutex = 4,      // plain and recursive
  kSemaphore = 5,  // counting and bounded
  kCondition = 6,
  kEvent = 7,
  kBarrier = 8,
  kPool = 9,       // call table of a pool
};

// Names one life of one object of the session.  64 bits: {kind:8, generation:24, index:32}.
class Handle {
 public:
  constexpr Handle() = default;
  constexpr Handle(ObjectKind kind, uint32_t generation, uint32_t index)
      : value_(static_cast<uint64_t>(kind) << 56 | static_cast<uint64_t>(generation & 0xffffff) << 32 |
               index) {}
  static constexpr Handle FromValue(uint64_t value) {
    Handle handle;
    handle.value_ = value;
    return handle;
  }

  constexpr uint64_t value() const { return value_; }
  constexpr ObjectKind kind() const { return static_cast<ObjectKind>(value_ >> 56); }
  constexpr uint32_t generation() const { return static_cast<uint32_t>(value_ >> 32) & 0xffffff; }
  constexpr uint32_t index() const { return static_cast<uint32_t>(value_); }
  constexpr explicit operator bool() const { return value_ != 0; }
  friend constexpr bool operator==(Handle, Handle) = default;

  // "queue 17.2" (kind index.generation), or "no object".
  std::string ToString() const;

 private:
  uint64_t value_ = 0;
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_BASE_IDS_H_
