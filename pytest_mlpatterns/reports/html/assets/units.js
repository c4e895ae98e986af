// Numbers as people read them: the same as pytest_mlpatterns/units.py prints, which a test compares. Ticks are shorter.
"use strict";
const units = (() => {
  const TIMES = [["s", 1e9], ["ms", 1e6], ["µs", 1e3], ["ns", 1]];
  const SIZES = [["TiB", 2 ** 40], ["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10], ["B", 1]];


  const grouped = (number, decimals) =>
    number.toLocaleString("en-US", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });

  function threeDigits(number) {
    if (number === 0) return "0";
    const rounded = Math.abs(number) < 999.5 ? Number(number.toPrecision(3)) : Math.round(number);
    return grouped(rounded, Math.max(0, 2 - Math.floor(Math.log10(Math.abs(rounded)))));
  }

  function scaled(scales, value) {
    const [unit, scale] = scales.find(([, scale]) => Math.abs(value) >= 0.9995 * scale) ?? scales.at(-1);
    return `${threeDigits(value / scale)} ${unit}`;
  }

  function percent(ratio) {
    const number = ratio * 100;
    const digits = Math.abs(number) >= 99.95 ? 0 : Math.abs(number) >= 0.995 || number === 0 ? 1 : 2;
    return `${number.toFixed(digits)} %`;
  }

  const formats = {
    duration: (ns) => scaled(TIMES, ns),
    size: (bytes) => scaled(SIZES, bytes),
    rate: (perSecond) => `${threeDigits(perSecond)} req/s`,
    ratio: percent,
    change: (ratio) => `${ratio > 0 ? "+" : ""}${percent(ratio)}`,
    count: (number) => (Number.isInteger(number) ? grouped(number, 0) : threeDigits(number)),
    percentile: (number) => (number === 100 ? "max" : `p${Number(number.toPrecision(10))}`),
    seconds: (number) => `${Number(number.toFixed(2))} s`,
    text: String,
  };

  const shortest = (number) => number.toLocaleString("en-US", { maximumSignificantDigits: 4 });

  function short(scales, value) {
    const [unit, scale] = scales.find(([, scale]) => Math.abs(value) >= 0.9995 * scale) ?? scales.at(-1);
    return value === 0 ? "0" : `${shortest(value / scale)} ${unit}`;
  }

  const shorts = {
    ...formats,
    duration: (ns) => short(TIMES, ns),
    size: (bytes) => short(SIZES, bytes),
    rate: shortest,
    count: shortest,
    ratio: (ratio) => `${shortest(ratio * 100)} %`,
    change: (ratio) => `${ratio > 0 ? "+" : ""}${shortest(ratio * 100)} %`,
    seconds: (number) => `${shortest(number)} s`,
  };

  return {
    /** A value of this unit in full; a dash without a value. */
    format: (unit, value) => (value === null || value === undefined ? "–" : formats[unit](value)),
    /** The same for the tick of an axis. */
    tick: (unit, value) => shorts[unit](value),
    /** Sizes go up in powers of two, everything else in powers of ten. */
    step: (unit, largest) => (unit === "size" ? SIZES.find(([, scale]) => largest >= scale)?.[1] ?? 1 : 1),
  };
})();
