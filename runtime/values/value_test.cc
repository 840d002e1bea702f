#include "pyhost/value.h"

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace pyhost {
namespace {

using ::testing::HasSubstr;

Value Through(const Value& value) {
  absl::StatusOr<Value> back = DecodeValue<Value>(EncodeValue(value)->bytes);
  EXPECT_TRUE(back.ok()) << back.status();
  return back.ok() ? *back : Value("failed");
}

TEST(ValueTest, EveryKindComesBackAsItWas) {
  const std::vector<Value> values = {nullptr,
                                     true,
                                     3,
                                     -1.5,
                                     std::complex<double>(1, 2),
                                     "text",
                                     UINT64_MAX,
                                     *Integer::FromHex("-0x123456789abcdef0123"),
                                     Value::Bytes(3, std::byte{7}),
                                     Value::ByteArray(Value::Bytes(2)),
                                     Value::List({1, "a", Value::List({})}),
                                     Value::Tuple({}),
                                     Value::Tuple({1, 2, 3, 4}),
                                     Value::Set({1, "x"}),
                                     Value::FrozenSet({2}),
                                     Value::Dict({{"a", 1}, {Value::Tuple({1, 2}), Value::Dict({})}})};
  for (const Value& value : values) EXPECT_EQ(Through(value), value);
  EXPECT_EQ(Through(Value::List(values)), Value::List(values));
}

TEST(ValueTest, ValuesOfDifferentKindsDiffer) {
  EXPECT_FALSE(Value(1) == Value(true));
  EXPECT_FALSE(Value(1) == Value(1.0));
  EXPECT_FALSE(Value::List({1}) == Value::Tuple({1}));
  EXPECT_FALSE(Value("a") == Value(Value::Bytes(1)));
  EXPECT_EQ(Value(uint64_t{5}), Value(5));
}

TEST(ValueTest, PartsAreFound) {
  const Value value = Value::Dict({{"hp", 3}, {4, "four"}});
  EXPECT_EQ(*value.Find("hp")->Get<int>(), 3);
  EXPECT_EQ(*value.Find(4)->string(), "four");
  EXPECT_EQ(value.Find("mp"), nullptr);
  EXPECT_EQ(Value(3).Find("hp"), nullptr);
  EXPECT_EQ(value.size(), 2u);
  EXPECT_THAT(std::string(value.Find("hp")->Get<std::string>().status().message()),
              HasSubstr("expected a str, got int 3"));
}

TEST(ValueTest, ArraysAreTheSameMemory) {
  const float numbers[] = {1, 2, 3};
  const Value value(AnyArray::CopyOf(DType::kFloat32, {3}, numbers));
  EXPECT_EQ(value, Value(value));
  EXPECT_FALSE(value == Value(AnyArray::CopyOf(DType::kFloat32, {3}, numbers)));
  EXPECT_EQ(value.kind(), ValueKind::kArray);
}

TEST(IntegerTest, HasTheShortestForm) {
  EXPECT_EQ(Integer(0).twos_complement(), "");
  EXPECT_EQ(Integer(-1).twos_complement(), "\xff");
  EXPECT_EQ(Integer(127).twos_complement(), "\x7f");
  EXPECT_EQ(Integer(128).twos_complement(), std::string("\x80\0", 2));
  EXPECT_EQ(Integer(-128).twos_complement(), "\x80");
  EXPECT_EQ(Integer::FromTwosComplement(std::string("\x05\0\0\0", 4)), Integer(5));
  EXPECT_EQ(Integer::FromTwosComplement("\xff\xff\xff"), Integer(-1));
}

TEST(IntegerTest, KnowsWhereItFits) {
  for (int64_t value : {int64_t{0}, int64_t{-1}, INT64_MAX, INT64_MIN}) EXPECT_EQ(Integer(value).ToInt64(), value);
  EXPECT_EQ(Integer::FromUint64(UINT64_MAX).ToUint64(), UINT64_MAX);
  EXPECT_EQ(Integer::FromUint64(UINT64_MAX).ToInt64(), std::nullopt);
  EXPECT_EQ(Integer(-1).ToUint64(), std::nullopt);
  EXPECT_EQ(Integer::FromHex("0x10000000000000000")->ToUint64(), std::nullopt);
}

TEST(IntegerTest, HexIsPythons) {
  for (const char* text :
       {"0x0", "0x1", "-0x1", "0x80", "-0x80", "-0x81", "0xff", "0x123456789abcdef0123456789abcdef"}) {
    absl::StatusOr<Integer> value = Integer::FromHex(text);
    ASSERT_TRUE(value.ok()) << value.status();
    EXPECT_EQ(value->ToHex(), text);
  }
  EXPECT_EQ(Integer(INT64_MIN).ToHex(), "-0x8000000000000000");
  for (const char* text : {"", "1", "0x", "-", "0xg", "0x-1", "--0x1"})
    EXPECT_FALSE(Integer::FromHex(text).ok()) << text;
}

}  // namespace
}  // namespace pyhost
