//! Eight words or sixteen halves in one register.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m256, __m512, _CMP_NLE_UQ, _mm_loadu_si128, _mm_storel_epi64, _mm_storeu_si128, _mm256_add_epi32,
    _mm256_andnot_si256, _mm256_cmp_ps_mask, _mm256_cvtepi32_epi8, _mm256_loadu_ps, _mm256_mask_add_epi32,
    _mm256_mask_and_epi32, _mm256_mask_mov_epi32, _mm256_popcnt_epi32, _mm256_set1_epi32, _mm256_set1_ps,
    _mm256_testn_epi32_mask, _mm512_add_epi32, _mm512_andnot_epi32, _mm512_cmp_ps_mask, _mm512_cvtepi32_epi8,
    _mm512_cvtepu8_epi32, _mm512_loadu_epi64, _mm512_loadu_ps, _mm512_mask_add_epi32, _mm512_mask_and_epi32,
    _mm512_mask_and_epi64, _mm512_mask_mov_epi32, _mm512_permutex2var_ps, _mm512_popcnt_epi32, _mm512_reduce_and_epi64,
    _mm512_set1_epi32, _mm512_set1_epi64, _mm512_set1_ps, _mm512_testn_epi32_mask,
};

use super::{BANK, Block, Group, HALF, Lines, SharedTests, Step};

pub(super) fn is_there() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vpopcntdq")
}

pub(super) fn rule_out(tests: &SharedTests, readings: &[[f32; BANK]], words: &mut [u64]) {
    assert!(is_there(), "the caller asked");
    // SAFETY: the processor has the instructions.
    unsafe { rule_out_wide(tests, readings, words) }
}

#[target_feature(enable = "avx512f,avx512vl,avx512vpopcntdq")]
fn rule_out_wide(tests: &SharedTests, readings: &[[f32; BANK]], words: &mut [u64]) {
    let left = |groups: &[Group]| {
        let mut left = _mm512_set1_epi64(-1);
        for group in groups {
            let [low, high]: &[[f32; 16]; 2] = readings[group.bank as usize].as_chunks().0.try_into().expect("two");
            // SAFETY: sixteen columns there.
            let columns = _mm512_cvtepu8_epi32(unsafe { _mm_loadu_si128(group.columns.as_ptr().cast()) });
            let values = _mm512_permutex2var_ps(sixteen(low), columns, sixteen(high));
            let fails = _mm512_cmp_ps_mask::<_CMP_NLE_UQ>(values, sixteen(&group.thresholds));
            for (words, fails) in group.left.as_chunks::<8>().0.iter().zip(fails.to_le_bytes()) {
                // SAFETY: eight words there.
                let words = unsafe { _mm512_loadu_epi64(words.as_ptr().cast()) };
                left = _mm512_mask_and_epi64(left, fails, left, words);
            }
        }
        _mm512_reduce_and_epi64(left).cast_unsigned()
    };
    tests.rule_out_with(left, words);
}

#[inline]
#[target_feature(enable = "avx512f")]
fn sixteen(values: &[f32; 16]) -> __m512 {
    // SAFETY: sixteen values there.
    unsafe { _mm512_loadu_ps(values.as_ptr()) }
}

pub(super) fn reach<const LANES: usize>(block: &Block<'_>, reached: &mut [[u8; LANES]]) {
    assert!(is_there(), "the caller asked");
    // SAFETY: the processor has the instructions.
    unsafe { reach_wide(block, reached) }
}

#[target_feature(enable = "avx512f,avx512vl,avx512vpopcntdq")]
fn reach_wide<const LANES: usize>(block: &Block<'_>, reached: &mut [[u8; LANES]]) {
    block.reach_with(
        |halves, steps, lines| {
            let mut lowest = [0; LANES];
            if let Some(lowest) = lowest.first_chunk_mut::<16>() {
                *lowest = lowest_left_of_sixteen(halves, steps, lines);
            } else if let Some(lowest) = lowest.first_chunk_mut::<8>() {
                *lowest = lowest_left_of_eight(halves, steps, lines);
            }
            lowest
        },
        reached,
    );
}

/// As [`super::lowest_left`], for the first eight rows.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512vpopcntdq")]
fn lowest_left_of_eight(halves: [u32; 2], steps: [&[Step]; 2], lines: &Lines) -> [u8; 8] {
    let mut halves = halves.map(|half| _mm256_set1_epi32(half.cast_signed()));
    for (half, steps) in halves.iter_mut().zip(steps) {
        for step in steps {
            for (values, threshold, left) in step.tests(lines) {
                let values = eight(values.first_chunk().expect("eight rows"));
                let fails = _mm256_cmp_ps_mask::<_CMP_NLE_UQ>(values, _mm256_set1_ps(threshold));
                *half = _mm256_mask_and_epi32(*half, fails, *half, _mm256_set1_epi32(left.cast_signed()));
            }
        }
    }
    let [low, high] = halves;
    let none = _mm256_testn_epi32_mask(low, low);
    let half = _mm256_mask_mov_epi32(low, none, high);
    let below = _mm256_andnot_si256(half, _mm256_add_epi32(half, _mm256_set1_epi32(-1)));
    let zeros = _mm256_popcnt_epi32(below);
    let lowest = _mm256_mask_add_epi32(zeros, none, zeros, _mm256_set1_epi32(HALF as i32));
    let mut bytes = [0; 8];
    // SAFETY: eight bytes there.
    unsafe { _mm_storel_epi64(bytes.as_mut_ptr().cast(), _mm256_cvtepi32_epi8(lowest)) };
    bytes
}

/// As [`super::lowest_left`], for the first sixteen rows.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512vpopcntdq")]
fn lowest_left_of_sixteen(halves: [u32; 2], steps: [&[Step]; 2], lines: &Lines) -> [u8; 16] {
    let mut halves = halves.map(|half| _mm512_set1_epi32(half.cast_signed()));
    for (half, steps) in halves.iter_mut().zip(steps) {
        for step in steps {
            for (values, threshold, left) in step.tests(lines) {
                let fails = _mm512_cmp_ps_mask::<_CMP_NLE_UQ>(sixteen(values), _mm512_set1_ps(threshold));
                *half = _mm512_mask_and_epi32(*half, fails, *half, _mm512_set1_epi32(left.cast_signed()));
            }
        }
    }
    let [low, high] = halves;
    let none = _mm512_testn_epi32_mask(low, low);
    let half = _mm512_mask_mov_epi32(low, none, high);
    let below = _mm512_andnot_epi32(half, _mm512_add_epi32(half, _mm512_set1_epi32(-1)));
    let zeros = _mm512_popcnt_epi32(below);
    let lowest = _mm512_mask_add_epi32(zeros, none, zeros, _mm512_set1_epi32(HALF as i32));
    let mut bytes = [0; 16];
    // SAFETY: sixteen bytes there.
    unsafe { _mm_storeu_si128(bytes.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(lowest)) };
    bytes
}

#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn eight(values: &[f32; 8]) -> __m256 {
    // SAFETY: eight values there.
    unsafe { _mm256_loadu_ps(values.as_ptr()) }
}
