//! LightGBM's own interface in C, on one thread: a whole matrix in a call, and single rows with parameters read once.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_int, c_void};
use std::ptr;

use lightgbm3_sys as sys;

const PARAMETERS: &CStr = c"num_threads=1";

/// A loaded model that gives sums of leaves.
pub(super) struct RawScores {
    booster: sys::BoosterHandle,
    single_row: sys::FastConfigHandle,
    width: usize,
}

impl RawScores {
    /// Loads a model's text.
    pub(super) fn new(text: &str, width: usize) -> Result<Self, String> {
        let text = CString::new(text).map_err(|error| error.to_string())?;
        let mut it = Self { booster: ptr::null_mut(), single_row: ptr::null_mut(), width };
        let mut iterations = 0;
        // SAFETY: the text ends with 0, and both places to write to live through the call.
        check(unsafe { sys::LGBM_BoosterLoadModelFromString(text.as_ptr(), &mut iterations, &mut it.booster) })?;
        // SAFETY: the booster was just made; the parameters end with 0.
        check(unsafe {
            sys::LGBM_BoosterPredictForMatSingleRowFastInit(
                it.booster,
                sys::C_API_PREDICT_RAW_SCORE as c_int,
                0,
                -1,
                sys::C_API_DTYPE_FLOAT32 as c_int,
                width as i32,
                PARAMETERS.as_ptr(),
                &mut it.single_row,
            )
        })?;
        Ok(it)
    }

    /// Answers all rows in one call.
    pub(super) fn matrix(&mut self, rows: &[f32], out: &mut [f64]) -> Result<(), String> {
        self.predict(rows, 1, sys::C_API_PREDICT_RAW_SCORE as c_int, out)
    }

    /// Numbers the leaves that each row reaches, one in each tree.
    pub(super) fn leaves(&mut self, rows: &[f32], n_trees: usize, out: &mut [f64]) -> Result<(), String> {
        self.predict(rows, n_trees, sys::C_API_PREDICT_LEAF_INDEX as c_int, out)
    }

    /// What each feature contributes to each row's answer, and then the mean over the training rows.
    #[cfg(test)]
    pub(super) fn contributions(&mut self, rows: &[f32], out: &mut [f64]) -> Result<(), String> {
        self.predict(rows, self.width + 1, sys::C_API_PREDICT_CONTRIB as c_int, out)
    }

    fn predict(&mut self, rows: &[f32], per_row: usize, kind: c_int, out: &mut [f64]) -> Result<(), String> {
        let n_rows = rows.len() / self.width;
        assert_eq!((rows.len(), out.len()), (n_rows * self.width, n_rows * per_row), "rows and answers must match");
        let mut n_expected = 0;
        // SAFETY: the booster is loaded, and the count has a place.
        check(unsafe { sys::LGBM_BoosterCalcNumPredict(self.booster, n_rows as c_int, kind, 0, -1, &mut n_expected) })?;
        assert_eq!(n_expected, out.len() as i64, "the model gives as many answers as asked for");
        let mut n_out = 0;
        // SAFETY: rows and answers are as long as the counts say, which were just checked.
        check(unsafe {
            sys::LGBM_BoosterPredictForMat(
                self.booster,
                rows.as_ptr().cast::<c_void>(),
                sys::C_API_DTYPE_FLOAT32 as c_int,
                n_rows as i32,
                self.width as i32,
                1,
                kind,
                0,
                -1,
                PARAMETERS.as_ptr(),
                &mut n_out,
                out.as_mut_ptr(),
            )
        })
    }

    /// Answers one row after the other.
    pub(super) fn row_by_row(&mut self, rows: &[f32], out: &mut [f64]) -> Result<(), String> {
        assert_eq!(rows.len(), out.len() * self.width, "rows and answers must match");
        for (row, out) in rows.chunks_exact(self.width).zip(out) {
            let mut n_out = 0;
            // SAFETY: the row is as wide as the configuration says, and the model has one output.
            check(unsafe {
                sys::LGBM_BoosterPredictForMatSingleRowFast(self.single_row, row.as_ptr().cast(), &mut n_out, out)
            })?;
        }
        Ok(())
    }
}

impl Drop for RawScores {
    fn drop(&mut self) {
        // SAFETY: each handle was made by LightGBM or is null, and is used no more. Nothing can be done about a failure.
        unsafe {
            if !self.single_row.is_null() {
                sys::LGBM_FastConfigFree(self.single_row);
            }
            if !self.booster.is_null() {
                sys::LGBM_BoosterFree(self.booster);
            }
        }
    }
}

fn check(code: c_int) -> Result<(), String> {
    if code == 0 {
        return Ok(());
    }
    // SAFETY: LightGBM keeps the text of the last error of this thread, ended with 0.
    Err(unsafe { CStr::from_ptr(sys::LGBM_GetLastError()) }.to_string_lossy().into_owned())
}
