//! The hash by which RabbitMQ's `x-modulus-hash` exchange spreads routing keys over its queues.
//!
//! It is Erlang's `phash2` of a list with the routing key as its one element (RabbitMQ's source,
//! `rabbit_sharding_exchange_type_modulus_hash`). `phash2` promises the same number on every machine and for every
//! version of Erlang; strings of bytes are mixed as in Bob Jenkins' hash of 1996 ("lookup2").

use super::layout::PartitionNumber;

/// Erlang distinguishes kinds of terms by multiples of the golden ratio.
const GOLDEN_RATIO: u32 = 0x9e37_79b9;
const OF_BINARIES: u32 = GOLDEN_RATIO.wrapping_mul(13);
const OF_EMPTY_LISTS: u32 = GOLDEN_RATIO.wrapping_mul(2);
/// What ends a list, in the numbering of terms that the hash uses.
const EMPTY_LIST: u32 = 2;
/// The exchange asks for a hash below 2^27.
const RANGE: u32 = 1 << 27;
/// Bytes that are mixed at once.
const BLOCK_BYTES: usize = 12;

/// The partition into which the hash exchange of a layout with this many partitions routes a record, if exactly the
/// queues of the layout are bound to it, once each. Any bytes can be a routing key.
///
/// # Panics
/// Without partitions.
#[must_use]
pub fn partition_of(record_key: &[u8], partitions: u16) -> PartitionNumber {
    let place = hash(record_key) % u32::from(partitions);
    PartitionNumber(u16::try_from(place).expect("a remainder is below its divisor"))
}

/// `erlang:phash2([RecordKey], 1 bsl 27)`.
fn hash(record_key: &[u8]) -> u32 {
    let of_key = if record_key.is_empty() { OF_BINARIES } else { of_bytes(record_key, OF_BINARIES) };
    let [.., of_list] = mix([OF_EMPTY_LISTS.wrapping_add(EMPTY_LIST), OF_EMPTY_LISTS, of_key]);
    of_list % RANGE
}

fn of_bytes(bytes: &[u8], start: u32) -> u32 {
    let mut state = [GOLDEN_RATIO, GOLDEN_RATIO, start];
    let mut blocks = bytes.chunks_exact(BLOCK_BYTES);
    for block in &mut blocks {
        state = mix(added(state, block));
    }
    // The lowest byte of the third word is the length's; what is left of the bytes goes around it.
    let [first, second, third] = added([0; 3], blocks.remainder());
    let length = u32::try_from(bytes.len()).expect("a key of some bytes");
    let [a, b, c] = state;
    let c = c.wrapping_add(length).wrapping_add(third << 8);
    let [.., hash] = mix([a.wrapping_add(first), b.wrapping_add(second), c]);
    hash
}

/// Adds up to twelve bytes, in little-endian words.
fn added(mut state: [u32; 3], bytes: &[u8]) -> [u32; 3] {
    for (word, bytes) in state.iter_mut().zip(bytes.chunks(4)) {
        let value = bytes.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte));
        *word = word.wrapping_add(value);
    }
    state
}

/// Each word is changed by the other two, three times.
fn mix([mut a, mut b, mut c]: [u32; 3]) -> [u32; 3] {
    for [shift_a, shift_b, shift_c] in [[13, 8, 13], [12, 16, 5], [3, 10, 15]] {
        a = a.wrapping_sub(b).wrapping_sub(c) ^ (c >> shift_a);
        b = b.wrapping_sub(c).wrapping_sub(a) ^ (a << shift_b);
        c = c.wrapping_sub(a).wrapping_sub(b) ^ (b >> shift_c);
    }
    [a, b, c]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From Erlang/OTP 25: `erlang:phash2([Key], 1 bsl 27)`.
    #[test]
    fn words_come_out_as_in_erlang() {
        let check = |key: &[u8], expected: u32| assert_eq!(hash(key), expected, "{key:?}");
        check(b"", 38_220_213);
        check(b"record-1", 65_037_473);
        check(b"record-2", 69_922_606);
        check(b"customer/42", 22_153_674);
        check("Müller".as_bytes(), 89_024_995);
        check("日本".as_bytes(), 115_741_037);
        check("😀".as_bytes(), 34_068_971);
        check(b"\xff", 91_660_254);
        check(b"\0", 133_870_479);
        check(b"\0\xff\xfe", 52_920_741);
        check(b"\xc3\x28", 129_127_153);
    }

    /// Keys of 0 to 300 bytes: `[((J*7+I*13) band 255) || J <- lists:seq(1,I)]` for each length `I`.
    #[test]
    fn keys_of_every_length_come_out_as_in_erlang() {
        for (length, expected) in (0_usize..).zip(OF_LENGTHS) {
            let key: Vec<u8> = (1..=length)
                .map(|place| u8::try_from((place * 7 + length * 13) & 255).expect("a byte"))
                .collect();
            assert_eq!(hash(&key), expected, "{length} bytes");
        }
    }

    #[test]
    fn a_partition_is_the_remainder() {
        let check = |partitions, expected| {
            assert_eq!(partition_of(b"record-1", partitions), PartitionNumber(expected));
        };
        check(1, 0);
        check(8, 1);
        check(1_000, 473);
        check(1_024, 161);
    }

    #[rustfmt::skip]
    const OF_LENGTHS: [u32; 301] = [
        38_220_213, 16_021_431, 9_869_728, 109_825_820, 33_107_838, 117_113_745, 39_770_186, 118_299_361,
        122_007_419, 33_659_461, 57_651_203, 43_141_578, 64_434_153, 120_628_735, 54_243_283, 41_675_587,
        30_927_858, 59_889_932, 59_792_046, 38_741_997, 131_435_744, 37_979_733, 75_714_420, 115_614_269,
        37_870_983, 41_919_537, 37_625_065, 131_591_574, 27_272_226, 25_871_349, 102_016_377, 105_250_051,
        5_577_153, 126_406_545, 101_072_673, 49_149_172, 131_316_857, 97_862_003, 53_707_715, 56_026_996,
        31_014_617, 63_889_232, 103_904_039, 108_908_655, 87_980_576, 126_701_227, 74_306_274, 125_958_336,
        10_419_860, 99_021_117, 34_604_104, 110_093_260, 59_464_335, 27_320_031, 19_917_223, 58_304_535,
        121_591_041, 121_264_568, 62_813_345, 109_321_765, 118_896_770, 50_495_408, 12_861_992, 43_916_405,
        112_503_870, 52_682_862, 67_629_512, 48_019_404, 75_569_202, 73_209_403, 112_426_208, 126_521_764,
        10_111_324, 112_330_004, 86_142_318, 4_523_100, 58_068_475, 54_775_508, 51_468_011, 41_979_342,
        90_251_487, 120_002_517, 74_557_104, 78_931_929, 94_101_327, 23_072_717, 107_724_058, 133_243_783,
        61_367_658, 115_007_939, 4_962_702, 32_246_558, 110_716_722, 110_772_325, 315_114, 41_513_751,
        21_657_533, 48_437_581, 112_847_879, 49_945_823, 103_520_730, 77_025_456, 23_775_993, 132_631_245,
        106_558_938, 127_291_813, 72_831_462, 50_763_658, 34_567_452, 52_495_474, 106_639_592, 27_207_107,
        70_679_189, 7_708_023, 29_041_009, 24_793_804, 107_784_590, 73_371_905, 91_497_949, 62_539_078,
        68_867_096, 66_683_587, 111_170_765, 44_424_378, 86_662_769, 55_154_710, 57_003_372, 69_856_069,
        6_826_970, 133_881_632, 61_703_642, 27_553_430, 31_360_990, 6_758_251, 58_610_501, 96_876_868,
        97_550_853, 129_447_654, 103_460_573, 113_962_871, 79_993_677, 7_939_624, 80_944_859, 40_110_971,
        4_374_900, 29_643_237, 50_890_245, 34_187_851, 127_098_301, 29_876_995, 103_590_412, 40_210_202,
        130_734_434, 112_749_698, 15_885_411, 119_228_514, 129_083_971, 49_225_727, 42_253_095, 90_150_123,
        76_056_479, 113_557_398, 80_593_956, 75_012_509, 2_262_391, 75_934_940, 8_056_893, 40_890_069,
        92_267_945, 59_519_878, 72_191_762, 121_145_356, 30_809_354, 134_199_035, 30_537_128, 58_492_212,
        87_888_747, 27_824_013, 115_627_268, 121_041_402, 119_321_074, 47_851_376, 26_064_197, 19_315_496,
        50_925_662, 28_856_801, 41_585_521, 38_721_139, 94_137_014, 119_675_014, 66_165_328, 17_262_994,
        905_984, 114_256_460, 109_814_311, 132_726_623, 80_767_756, 35_288_352, 40_242_695, 52_137_604,
        99_893_367, 65_093_403, 121_398_749, 56_714_690, 14_787_952, 90_512_976, 78_540_189, 15_341_414,
        108_187_990, 43_287_251, 91_161_455, 117_049_777, 9_514_699, 106_713_078, 44_315_935, 121_514_869,
        20_780_387, 7_771_142, 61_275_347, 26_668_246, 113_862_201, 68_540_286, 19_047_899, 108_809_087,
        45_968_344, 92_868_669, 111_142_531, 96_425_342, 22_581_964, 18_107_069, 39_386_782, 18_938_614,
        71_785_035, 49_197_676, 16_224_396, 133_666_752, 82_929_235, 108_047_358, 12_256_701, 53_992_810,
        56_745_457, 108_511_495, 36_625_262, 81_875_319, 45_883_286, 105_441_931, 52_270_878, 87_198_000,
        39_719_043, 46_242_443, 51_145_935, 73_633_030, 78_618_036, 40_514_197, 56_030_626, 77_288_635,
        120_335_378, 65_390_092, 98_470_072, 92_373_942, 82_257_293, 54_598_101, 96_574_278, 85_174_883,
        79_427_799, 24_165_870, 111_141_932, 107_382_692, 13_432_011, 68_041_397, 94_628_815, 84_036_423,
        86_496_573, 30_219_731, 89_965_828, 9_818_604, 118_455_649, 118_932_647, 47_129_307, 57_416_267,
        82_722_848, 88_151_982, 133_878_529, 60_418_055, 24_130_637, 22_418_726, 102_350_797, 80_225_767,
        59_342_138, 37_763_393, 35_131_600, 121_328_987, 80_879_661, 104_881_394, 84_739_137, 25_638_698,
        44_676_693, 63_292_012, 120_892_174, 362_957, 36_746_950,
    ];
}
