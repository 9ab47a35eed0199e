//! Unary gRPC calls, as any client makes them: HTTP/2, one frame, status in the trailers.

use bytes::Bytes;
use http::Request;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::rt::TokioExecutor;
use prost::Message;

use crate::loopback::connector;

/// Calls a method at `origin`. `Err` carries the gRPC status code.
pub async fn call<A: Message + Default>(
    origin: &str,
    method: &str,
    token: Option<&str>,
    message: &impl Message,
) -> Result<A, String> {
    let http =
        HttpClient::builder(TokioExecutor::new()).http2_only(true).build::<_, Full<Bytes>>(connector());
    let message = message.encode_to_vec();
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    frame.extend(message);
    let mut request = Request::post(format!("{origin}{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let response = http.request(request.body(Full::new(frame.into())).unwrap()).await;
    let (parts, body) = response.map_err(|error| format!("{error:?}"))?.into_parts();
    let body = body.collect().await.map_err(|error| error.to_string())?;
    let in_trailers = body.trailers().and_then(|trailers| trailers.get("grpc-status"));
    let status = in_trailers.or_else(|| parts.headers.get("grpc-status"));
    match status.and_then(|status| status.to_str().ok()) {
        Some("0") => {}
        Some(code) => return Err(code.to_owned()),
        None => return Err(format!("no gRPC status, HTTP {}", parts.status)),
    }
    let bytes = body.to_bytes();
    let message = bytes.get(5..).ok_or("the frame is cut short")?;
    A::decode(message).map_err(|error| error.to_string())
}

/// An open call with messages in both directions.
pub struct Stream {
    questions: tokio::sync::mpsc::Sender<Result<Frame<Bytes>, std::convert::Infallible>>,
    answers: hyper::body::Incoming,
    pending: Vec<u8>,
}

impl Stream {
    pub async fn open(origin: &str, method: &str) -> Self {
        let (questions, receiver) = tokio::sync::mpsc::channel(1);
        let body = StreamBody::new(futures_util::stream::unfold(receiver, async |mut receiver| {
            receiver.recv().await.map(|frame| (frame, receiver))
        }));
        let http = HttpClient::builder(TokioExecutor::new())
            .http2_only(true)
            .build::<_, UnsyncBoxBody<_, _>>(connector());
        let request = Request::post(format!("{origin}{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        let response = http.request(request.body(UnsyncBoxBody::new(body)).unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        Self { questions, answers: response.into_body(), pending: Vec::new() }
    }

    /// Sends a message and waits for the next one that comes.
    pub async fn ask<A: Message + Default>(&mut self, message: &impl Message) -> A {
        let message = message.encode_to_vec();
        let mut frame = vec![0];
        frame.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        frame.extend(message);
        self.questions.send(Ok(Frame::data(frame.into()))).await.unwrap();
        loop {
            if let Some((head, rest)) = self.pending.split_first_chunk::<5>() {
                let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
                if rest.len() >= length {
                    let answer = A::decode(&rest[..length]).unwrap();
                    self.pending.drain(..5 + length);
                    return answer;
                }
            }
            let frame = self.answers.frame().await.expect("an answer").unwrap();
            self.pending.extend_from_slice(&frame.into_data().expect("data"));
        }
    }

    /// Ends the questions; the status of the call.
    pub async fn finish(mut self) -> String {
        drop(self.questions);
        while let Some(frame) = self.answers.frame().await {
            if let Ok(trailers) = frame.unwrap().into_trailers() {
                return trailers["grpc-status"].to_str().unwrap().to_owned();
            }
        }
        panic!("no trailers")
    }
}
