//! The part of `onnx.proto` (IR version 8) that is written and read here; what a foreign model says beyond it is skipped.

use prost::Message;

/// `TensorProto.DataType`: the element types used here.
pub(super) const FLOAT: i32 = 1;
pub(super) const INT64: i32 = 7;

/// `AttributeProto.AttributeType`: the kinds used here.
const ATTRIBUTE_INT: i32 = 2;
const ATTRIBUTE_STRING: i32 = 3;
const ATTRIBUTE_FLOATS: i32 = 6;
const ATTRIBUTE_INTS: i32 = 7;
const ATTRIBUTE_STRINGS: i32 = 8;

#[derive(Clone, PartialEq, Message)]
pub(super) struct Model {
    #[prost(int64, optional, tag = "1")]
    pub(super) ir_version: Option<i64>,
    #[prost(string, optional, tag = "2")]
    pub(super) producer_name: Option<String>,
    #[prost(string, optional, tag = "3")]
    pub(super) producer_version: Option<String>,
    #[prost(message, optional, tag = "7")]
    pub(super) graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    pub(super) opset_import: Vec<OperatorSet>,
    #[prost(message, repeated, tag = "14")]
    pub(super) metadata_props: Vec<Entry>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct OperatorSet {
    #[prost(string, optional, tag = "1")]
    pub(super) domain: Option<String>,
    #[prost(int64, optional, tag = "2")]
    pub(super) version: Option<i64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Entry {
    #[prost(string, optional, tag = "1")]
    pub(super) key: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub(super) value: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Graph {
    #[prost(message, repeated, tag = "1")]
    pub(super) node: Vec<Node>,
    #[prost(string, optional, tag = "2")]
    pub(super) name: Option<String>,
    #[prost(message, repeated, tag = "5")]
    pub(super) initializer: Vec<Tensor>,
    #[prost(message, repeated, tag = "11")]
    pub(super) input: Vec<ValueInfo>,
    #[prost(message, repeated, tag = "12")]
    pub(super) output: Vec<ValueInfo>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Node {
    #[prost(string, repeated, tag = "1")]
    pub(super) input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub(super) output: Vec<String>,
    #[prost(string, optional, tag = "3")]
    pub(super) name: Option<String>,
    #[prost(string, optional, tag = "4")]
    pub(super) op_type: Option<String>,
    #[prost(message, repeated, tag = "5")]
    pub(super) attribute: Vec<Attribute>,
    #[prost(string, optional, tag = "7")]
    pub(super) domain: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Attribute {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(int64, optional, tag = "3")]
    i: Option<i64>,
    #[prost(bytes = "vec", optional, tag = "4")]
    s: Option<Vec<u8>>,
    #[prost(float, repeated, tag = "7")]
    floats: Vec<f32>,
    #[prost(int64, repeated, tag = "8")]
    ints: Vec<i64>,
    #[prost(bytes = "vec", repeated, tag = "9")]
    strings: Vec<Vec<u8>>,
    #[prost(int32, optional, tag = "20")]
    kind: Option<i32>,
}

impl Attribute {
    fn new(name: &str, kind: i32) -> Self {
        Self { name: Some(name.to_owned()), kind: Some(kind), ..Self::default() }
    }

    pub(super) fn int(name: &str, value: i64) -> Self {
        Self { i: Some(value), ..Self::new(name, ATTRIBUTE_INT) }
    }

    pub(super) fn string(name: &str, value: &str) -> Self {
        Self { s: Some(value.into()), ..Self::new(name, ATTRIBUTE_STRING) }
    }

    pub(super) fn floats(name: &str, floats: Vec<f32>) -> Self {
        Self { floats, ..Self::new(name, ATTRIBUTE_FLOATS) }
    }

    pub(super) fn ints(name: &str, ints: Vec<i64>) -> Self {
        Self { ints, ..Self::new(name, ATTRIBUTE_INTS) }
    }

    pub(super) fn strings(name: &str, strings: Vec<Vec<u8>>) -> Self {
        Self { strings, ..Self::new(name, ATTRIBUTE_STRINGS) }
    }
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Tensor {
    #[prost(int64, repeated, tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, optional, tag = "2")]
    data_type: Option<i32>,
    #[prost(float, repeated, tag = "4")]
    pub(super) float_data: Vec<f32>,
    #[prost(int64, repeated, tag = "7")]
    pub(super) int64_data: Vec<i64>,
    #[prost(string, optional, tag = "8")]
    pub(super) name: Option<String>,
}

impl Tensor {
    /// One number for all rows.
    pub(super) fn scalar(name: &str, value: f32) -> Self {
        let float_data = vec![value];
        Self { name: Some(name.to_owned()), data_type: Some(FLOAT), float_data, ..Self::default() }
    }

    /// A list of places.
    pub(super) fn indices(name: &str, places: Vec<i64>) -> Self {
        let (name, dims) = (Some(name.to_owned()), vec![places.len() as i64]);
        Self { name, data_type: Some(INT64), dims, int64_data: places, ..Self::default() }
    }

    /// Rows of so many numbers, one after the other.
    pub(super) fn rows(name: &str, width: usize, values: Vec<f32>) -> Self {
        let dims = vec![(values.len() / width) as i64, width as i64];
        Self { name: Some(name.to_owned()), data_type: Some(FLOAT), dims, float_data: values, ..Self::default() }
    }
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ValueInfo {
    #[prost(string, optional, tag = "1")]
    pub(super) name: Option<String>,
    #[prost(message, optional, tag = "2")]
    pub(super) of: Option<Type>,
}

impl ValueInfo {
    /// Floats in any number of rows of this width.
    pub(super) fn rows(name: &str, width: usize) -> Self {
        let any = Dimension { symbol: Some("N".to_owned()), ..Dimension::default() };
        let width = Dimension { value: i64::try_from(width).ok(), ..Dimension::default() };
        let tensor = TensorType { element: Some(FLOAT), shape: Some(Shape { dimensions: vec![any, width] }) };
        Self { name: Some(name.to_owned()), of: Some(Type { tensor: Some(tensor) }) }
    }
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Type {
    #[prost(message, optional, tag = "1")]
    pub(super) tensor: Option<TensorType>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TensorType {
    #[prost(int32, optional, tag = "1")]
    pub(super) element: Option<i32>,
    #[prost(message, optional, tag = "2")]
    pub(super) shape: Option<Shape>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Shape {
    #[prost(message, repeated, tag = "1")]
    pub(super) dimensions: Vec<Dimension>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Dimension {
    #[prost(int64, optional, tag = "1")]
    pub(super) value: Option<i64>,
    #[prost(string, optional, tag = "2")]
    pub(super) symbol: Option<String>,
}
