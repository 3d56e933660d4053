//! Four words or eight halves in one register.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m256, __m256i, _CMP_LE_OQ, _mm_loadl_epi64, _mm256_and_si256, _mm256_castps_si256, _mm256_castsi256_si128,
    _mm256_cmp_ps, _mm256_cvtepi32_epi64, _mm256_cvtepu8_epi32, _mm256_extracti128_si256, _mm256_i32gather_ps,
    _mm256_loadu_ps, _mm256_loadu_si256, _mm256_or_si256, _mm256_set1_epi32, _mm256_set1_epi64x, _mm256_set1_ps,
    _mm256_storeu_si256,
};
use std::array;
use std::ops::BitAnd;

use super::{BANK, Block, Group, HALF, Lines, SharedTests, Step, trailing_zeros};

pub(super) fn is_there() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi1")
}

pub(super) fn rule_out(tests: &SharedTests, readings: &[[f32; BANK]], words: &mut [u64]) {
    assert!(is_there(), "the caller asked");
    // SAFETY: the processor has the instructions.
    unsafe { rule_out_wide(tests, readings, words) }
}

#[target_feature(enable = "avx2,bmi1")]
fn rule_out_wide(tests: &SharedTests, readings: &[[f32; BANK]], words: &mut [u64]) {
    let left = |groups: &[Group]| {
        let mut left = _mm256_set1_epi64x(-1);
        for group in groups {
            let readings: &[f32; BANK] = &readings[group.bank as usize];
            let of_eight = group.columns.as_chunks::<8>().0.iter().zip(group.thresholds.as_chunks::<8>().0);
            for ((columns, thresholds), words) in of_eight.zip(group.left.as_chunks::<8>().0) {
                // SAFETY: eight columns there.
                let columns = _mm256_cvtepu8_epi32(unsafe { _mm_loadl_epi64(columns.as_ptr().cast()) });
                let columns = _mm256_and_si256(columns, _mm256_set1_epi32(BANK as i32 - 1));
                // SAFETY: no column is beyond the bank.
                let values = unsafe { _mm256_i32gather_ps::<4>(readings.as_ptr(), columns) };
                let passes = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_LE_OQ>(values, eight(thresholds)));
                let passes = [_mm256_castsi256_si128(passes), _mm256_extracti128_si256::<1>(passes)];
                for (words, passes) in words.as_chunks::<4>().0.iter().zip(passes) {
                    // SAFETY: four words there.
                    let words = unsafe { _mm256_loadu_si256(words.as_ptr().cast()) };
                    left = _mm256_and_si256(left, _mm256_or_si256(_mm256_cvtepi32_epi64(passes), words));
                }
            }
        }
        let [low, high] =
            [0, 1].map(|half| words_of(left).into_iter().skip(half).step_by(2).fold(u32::MAX, BitAnd::bitand));
        u64::from(low) | u64::from(high) << HALF
    };
    tests.rule_out_with(left, words);
}

#[inline]
#[target_feature(enable = "avx2")]
fn eight(values: &[f32; 8]) -> __m256 {
    // SAFETY: eight values there.
    unsafe { _mm256_loadu_ps(values.as_ptr()) }
}

pub(super) fn reach<const LANES: usize>(block: &Block<'_>, reached: &mut [[u8; LANES]]) {
    assert!(is_there(), "the caller asked");
    // SAFETY: the processor has the instructions.
    unsafe { reach_wide(block, reached) }
}

#[target_feature(enable = "avx2,bmi1")]
fn reach_wide<const LANES: usize>(block: &Block<'_>, reached: &mut [[u8; LANES]]) {
    let lowest_left = |halves, steps: [&[Step]; 2], lines: &Lines| {
        let mut lowest = [0; LANES];
        for (eight, lowest) in lowest.as_chunks_mut().0.iter_mut().enumerate() {
            *lowest = lowest_left_of_eight(halves, steps, lines, 8 * eight);
        }
        lowest
    };
    block.reach_with(lowest_left, reached);
}

/// As [`super::lowest_left`], for the eight rows from `first` on.
#[inline]
#[target_feature(enable = "avx2,bmi1")]
fn lowest_left_of_eight(halves: [u32; 2], steps: [&[Step]; 2], lines: &Lines, first: usize) -> [u8; 8] {
    let mut halves = halves.map(|half| _mm256_set1_epi32(half.cast_signed()));
    for (half, steps) in halves.iter_mut().zip(steps) {
        for step in steps {
            for (values, threshold, left) in step.tests(lines) {
                let values = eight(values[first..].first_chunk().expect("eight rows at a time"));
                let passes = _mm256_cmp_ps::<_CMP_LE_OQ>(values, _mm256_set1_ps(threshold));
                let left = _mm256_or_si256(_mm256_castps_si256(passes), _mm256_set1_epi32(left.cast_signed()));
                *half = _mm256_and_si256(*half, left);
            }
        }
    }
    let [low, high] = halves.map(|half| words_of(half));
    array::from_fn(|lane| trailing_zeros(low[lane], high[lane]))
}

#[inline]
#[target_feature(enable = "avx2")]
fn words_of(register: __m256i) -> [u32; 8] {
    let mut words = [0; 8];
    // SAFETY: eight words there.
    unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), register) };
    words
}
