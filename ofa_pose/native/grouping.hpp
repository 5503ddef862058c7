// Whom joints belong to, by associative embedding (Newell, Huang and Deng, 2017): ofa_pose/pose/grouping.py and
// ofa_pose/web/grouping.js in C++17, without dependencies. It gives the same people as they do.

#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

namespace ofa_pose {

constexpr double kStepCost = 100;  // of a pair of tags that do not fit: no difference of heats outweighs it
constexpr double kTieWeight = 1e-3;  // of heat times heat, against heat: decides ties only

struct Options {  // as in "decode" of the model's metadata, but the reach is in input pixels here
  double tag_threshold = 1;
  double reach = std::numeric_limits<double>::infinity();  // the metadata's share times the input's short side
  std::size_t max_people = 30;
};

struct Person {
  double score;  // the sum of the joints' heats divided by J
  double tag;  // the mean of theirs
  std::vector<std::array<float, 3>> keypoints;  // J: x and y in input pixels, heat; 0, 0, 0 where it was not found
};

using Costs = std::vector<std::vector<double>>;

/// The column of each of `count` rows, or -1 where there are more rows than columns, for the least sum of costs, by
/// shortest augmenting paths (Crouse, 2016); ties break as in SciPy's linear_sum_assignment, whose order of search it has.
inline std::vector<int> assign(const Costs& cost, int count, int width) {
  const bool turned = width < count;
  const int rows = turned ? width : count, columns = turned ? count : width;
  std::vector<double> row_price(rows), column_price(columns);
  std::vector<int> column_of(rows, -1), row_of(columns, -1);
  for (int start = 0; start < rows; ++start) {
    std::vector<int> open(columns), before(columns), seen_rows, seen_columns;
    std::iota(open.rbegin(), open.rend(), 0);
    std::vector<double> distance(columns, std::numeric_limits<double>::infinity());
    int row = start, column = -1;
    double length = 0;  // of the shortest path so far
    do {
      seen_rows.push_back(row);
      std::size_t next = 0;
      double least = std::numeric_limits<double>::infinity();
      for (std::size_t k = 0; k < open.size(); ++k) {
        const int j = open[k];
        const double along = length + (turned ? cost[j][row] : cost[row][j]) - row_price[row] - column_price[j];
        if (along < distance[j]) {
          distance[j] = along;
          before[j] = row;
        }
        if (distance[j] < least || (distance[j] == least && row_of[j] < 0)) {
          least = distance[j];
          next = k;
        }
      }
      length = least;
      column = open[next];
      open[next] = open.back();
      open.pop_back();
      seen_columns.push_back(column);
      row = row_of[column];
    } while (row >= 0);
    for (int i : seen_rows) row_price[i] += i == start ? length : length - distance[column_of[i]];
    for (int j : seen_columns) column_price[j] -= length - distance[j];
    do {
      row = before[column];
      row_of[column] = row;
      std::swap(column_of[row], column);
    } while (row != start);
  }
  return turned ? row_of : column_of;
}

/// The people of one image, best first.
///
/// joints: (J, K, 4), as the output "joints" of a model with its decoder inside has it of an image: x and y in input
///     pixels, heat, tag. A row of heat 0 is empty.
/// candidates: K.
/// order: the J joints' indices in the order of grouping, "grouping_order" of the model's metadata.
inline std::vector<Person> group(const float* joints, std::size_t candidates, const std::vector<int>& order,
                                 const Options& options = {}) {
  struct Group {
    double tags, strength;
    int count;
    std::array<double, 4> box;  // left, top, right, bottom
    std::vector<std::array<float, 3>> keypoints;
  };
  const auto grown = [](const std::array<double, 4>& box, double x, double y) -> std::array<double, 4> {
    return {std::min(box[0], x), std::min(box[1], y), std::max(box[2], x), std::max(box[3], y)};
  };
  const double limit = options.tag_threshold / 2 * (options.tag_threshold / 2);
  std::vector<Group> groups;
  for (const int joint : order) {
    std::vector<const float*> peaks;
    for (std::size_t k = 0; k < candidates; ++k) {
      const float* peak = joints + 4 * (candidates * joint + k);
      if (peak[2] > 0) peaks.push_back(peak);
    }
    const int people = static_cast<int>(groups.size());
    std::vector<std::vector<bool>> near(peaks.size(), std::vector<bool>(people));
    Costs cost(peaks.size(), std::vector<double>(people));
    for (std::size_t i = 0; i < peaks.size(); ++i) {
      const double x = peaks[i][0], y = peaks[i][1], heat = peaks[i][2];
      for (int k = 0; k < people; ++k) {
        const double apart = peaks[i][3] - groups[k].tags / groups[k].count;
        const auto box = grown(groups[k].box, x, y);
        near[i][k] = apart * apart < limit && box[2] - box[0] <= options.reach && box[3] - box[1] <= options.reach;
        cost[i][k] = (near[i][k] ? -kTieWeight * heat * groups[k].strength : kStepCost) - heat;
      }
    }
    const std::vector<int> chosen = assign(cost, static_cast<int>(peaks.size()), people);
    for (std::size_t i = 0; i < peaks.size(); ++i) {
      const double x = peaks[i][0], y = peaks[i][1];
      int owner = chosen[i] >= 0 && near[i][chosen[i]] ? chosen[i] : -1;
      if (owner < 0) {
        owner = static_cast<int>(groups.size());
        groups.push_back({0, 0, 0, {x, y, x, y}, std::vector<std::array<float, 3>>(order.size())});
      }
      Group& person = groups[owner];
      person.tags += peaks[i][3];
      person.strength += peaks[i][2];
      person.count += 1;
      person.box = grown(person.box, x, y);
      person.keypoints[joint] = {peaks[i][0], peaks[i][1], peaks[i][2]};
    }
  }
  std::stable_sort(groups.begin(), groups.end(), [](const Group& a, const Group& b) { return a.strength > b.strength; });
  groups.resize(std::min(groups.size(), options.max_people));
  std::vector<Person> found;
  for (const Group& one : groups) found.push_back({one.strength / order.size(), one.tags / one.count, one.keypoints});
  return found;
}

}  // namespace ofa_pose
