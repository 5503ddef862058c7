// Whom joints belong to, by associative embedding (Newell, Huang and Deng, 2017): ofa_pose/pose/grouping.py and
// ofa_pose/native/grouping.hpp in JavaScript. It gives the same people as they do, to the last bit of a double.

const STEP_COST = 100; // of a pair of tags that do not fit: no difference of heats outweighs it
const TIE_WEIGHT = 1e-3; // of heat times heat, against heat: decides ties only

/**
 * The people of one image, best first.
 * @param {ArrayLike<number>} joints flat (J, K, 4), as the output "joints" of a model with its decoder inside has it of
 *     an image: x and y in input pixels, heat, tag. A row of heat 0 is empty.
 * @param {number[]} order the J joints' indices in the order of grouping, "grouping_order" of the model's metadata.
 * @param {{tag_threshold?: number, reach?: number, max_people?: number}} [options] as in "decode" of the metadata, but
 *     the reach, the longer side of the box round a person's joints at most, is in input pixels here: its share of the
 *     input's short side times that side.
 * @returns {{score: number, tag: number, keypoints: number[][]}[]} score: the sum of the joints' heats divided by J; tag:
 *     the mean of theirs; keypoints: of each joint [x, y, heat], of one that was not found [0, 0, 0].
 * @throws {RangeError} where the joints are not four numbers a row, as many rows of each joint.
 */
export function group(joints, order, { tag_threshold = 1, reach = Infinity, max_people = 30 } = {}) {
  const limit = (tag_threshold / 2) * (tag_threshold / 2);
  const rows = joints.length / (4 * order.length);
  if (!Number.isInteger(rows)) throw new RangeError(`${joints.length} numbers are not those of ${order.length} joints`);
  const people = [];
  for (const joint of order) {
    const peaks = [];
    for (let start = 4 * rows * joint; start < 4 * rows * (joint + 1); start += 4) {
      if (joints[start + 2] > 0) peaks.push(Array.prototype.slice.call(joints, start, start + 4));
    }
    if (!peaks.length) continue;
    const near = peaks.map(([x, y, , tag]) =>
      people.map(({ box, tags, count }) => {
        const apart = tag - tags / count;
        const [left, top, right, bottom] = grown(box, x, y);
        return apart * apart < limit && right - left <= reach && bottom - top <= reach;
      }),
    );
    const cost = peaks.map(([, , heat], i) =>
      people.map((person, k) => (near[i][k] ? -TIE_WEIGHT * heat * person.strength : STEP_COST) - heat),
    );
    const chosen = assign(cost);
    peaks.forEach(([x, y, heat, tag], i) => {
      let person = chosen[i] >= 0 && near[i][chosen[i]] ? people[chosen[i]] : null;
      if (!person) {
        person = { tags: 0, strength: 0, count: 0, box: [x, y, x, y], keypoints: order.map(() => [0, 0, 0]) };
        people.push(person);
      }
      person.tags += tag;
      person.strength += heat;
      person.count += 1;
      person.box = grown(person.box, x, y);
      person.keypoints[joint] = [x, y, heat];
    });
  }
  const best = people.sort((one, other) => other.strength - one.strength).slice(0, max_people);
  return best.map(({ tags, strength, count, keypoints }) => ({
    score: strength / order.length,
    tag: tags / count,
    keypoints,
  }));
}

/** The box [left, top, right, bottom] round a box and a point. */
function grown([left, top, right, bottom], x, y) {
  return [Math.min(left, x), Math.min(top, y), Math.max(right, x), Math.max(bottom, y)];
}

/**
 * The assignment of rows to columns of the least sum of costs, by shortest augmenting paths (Crouse, 2016); ties break as
 * in SciPy's linear_sum_assignment, whose order of search this has.
 * @param {number[][]} cost one row at least; rows may have no columns.
 * @returns {ArrayLike<number>} of each row its column, or -1 where there are more rows than columns.
 */
function assign(cost) {
  const turned = cost[0].length < cost.length;
  const [rows, columns] = turned ? [cost[0].length, cost.length] : [cost.length, cost[0].length];
  const rowPrice = new Float64Array(rows);
  const columnPrice = new Float64Array(columns);
  const columnOf = new Int32Array(rows).fill(-1);
  const rowOf = new Int32Array(columns).fill(-1);
  for (let start = 0; start < rows; start++) {
    const open = Array.from({ length: columns }, (_, k) => columns - 1 - k);
    const distance = new Float64Array(columns).fill(Infinity);
    const before = new Int32Array(columns);
    const seenRows = [];
    const seenColumns = [];
    let row = start;
    let column = -1;
    let length = 0; // of the shortest path so far
    do {
      seenRows.push(row);
      let next = 0;
      let least = Infinity;
      for (let k = 0; k < open.length; k++) {
        const j = open[k];
        const along = length + (turned ? cost[j][row] : cost[row][j]) - rowPrice[row] - columnPrice[j];
        if (along < distance[j]) {
          distance[j] = along;
          before[j] = row;
        }
        if (distance[j] < least || (distance[j] === least && rowOf[j] < 0)) {
          least = distance[j];
          next = k;
        }
      }
      length = least;
      column = open[next];
      open[next] = open[open.length - 1];
      open.pop();
      seenColumns.push(column);
      row = rowOf[column];
    } while (row >= 0);
    for (const i of seenRows) rowPrice[i] += i === start ? length : length - distance[columnOf[i]];
    for (const j of seenColumns) columnPrice[j] -= length - distance[j];
    do {
      row = before[column];
      rowOf[column] = row;
      [columnOf[row], column] = [column, columnOf[row]];
    } while (row !== start);
  }
  return turned ? rowOf : columnOf;
}
