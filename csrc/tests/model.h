// SPDX-License-Identifier: Apache-2.0
//
// A scorer of random weights, and its file.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <random>
#include <span>
#include <vector>

#include "scorer.h"
#include "weights.h"

namespace sprout::test {

inline constexpr std::uint32_t kOrders[] = {1, 2, 5, 8}, kBits = 10;

struct Model {
  Model(std::uint32_t l, std::uint32_t c) : levels(l), classes(c) {
    std::mt19937 random(l * 100 + c);
    table.resize((std::size_t{1} << kBits) * (l + c));
    for (std::int8_t& weight : table) weight = static_cast<std::int8_t>(int(random() % 255) - 127);
    scales.assign(l + c, 0.01);
    biases.assign(l + c, 0.1);
    second.resize(std::size_t{2} * l * (c + 1) * (l + 2));
    for (double& weight : second) weight = double(random() % 1000) / 1000 - 0.5;
    scorer = std::make_unique<Scorer>(Grams(kOrders, kBits),
                                      ScorerWeights{l, c, table, scales, biases, second});
  }

  std::uint32_t levels, classes;
  std::vector<std::int8_t> table;
  std::vector<double> scales, biases, second;
  std::unique_ptr<Scorer> scorer;
};

inline std::vector<std::byte> file_of(const Model& model) {
  WeightsHeader header{kWeightsMagic, kWeightsLayout,     model.levels, model.classes,
                       kBits,         std::size(kOrders), {},           0};
  std::copy(std::begin(kOrders), std::end(kOrders), header.orders);
  std::vector<std::byte> file;
  const auto put = [&](const auto& values) {
    const auto bytes = std::as_bytes(std::span(values));
    file.insert(file.end(), bytes.begin(), bytes.end());
  };
  put(std::span(&header, 1));
  put(model.scales);
  put(model.biases);
  put(model.second);
  put(model.table);
  return file;
}

}  // namespace sprout::test
