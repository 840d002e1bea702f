#include "runtime/base/ids.h"

#include "gtest/gtest.h"
#include "runtime/base/random_id.h"

namespace pyhost {
namespace {

TEST(HostIdTest, PacksSlotAndGeneration) {
  const HostId id(4095, HostId::kMaxGeneration);
  EXPECT_EQ(id.slot(), 4095u);
  EXPECT_EQ(id.generation(), HostId::kMaxGeneration);
  EXPECT_LT(id.value(), 1u << 30);  // two bits are left beside it in a lock word
  EXPECT_EQ(HostId::FromValue(id.value()), id);
}

TEST(HostIdTest, NoHostIsZero) {
  EXPECT_FALSE(HostId());
  EXPECT_TRUE(HostId(0, 1));
  EXPECT_EQ(HostId().ToString(), "no host");
  EXPECT_EQ(HostId(3, 1).ToString(), "host 3.1");
}

TEST(HandleTest, PacksKindGenerationAndIndex) {
  const Handle handle(ObjectKind::kQueue, 0xffffff, 0xffffffff);
  EXPECT_EQ(handle.kind(), ObjectKind::kQueue);
  EXPECT_EQ(handle.generation(), 0xffffffu);
  EXPECT_EQ(handle.index(), 0xffffffffu);
  EXPECT_EQ(Handle::FromValue(handle.value()), handle);
}

TEST(HandleTest, PrintsItsKind) {
  EXPECT_EQ(Handle(ObjectKind::kQueue, 2, 17).ToString(), "queue 17.2");
  EXPECT_EQ(Handle().ToString(), "no object");
  EXPECT_EQ(Handle::FromValue(uint64_t{99} << 56 | 1).ToString(), "object of unknown kind 99 1.0");
}

TEST(RandomIdTest, IsNeverZeroAndNeverTwice) {
  const uint64_t first = *NewRandomId();
  const uint64_t second = *NewRandomId();
  EXPECT_NE(first, 0u);
  EXPECT_NE(first, second);
}

}  // namespace
}  // namespace pyhost
