//! gRPC server reflection: a stream of questions, each answered as it comes.

use prost::Message;
use settle_proto::descriptors::File;
use settle_proto::reflection_v1::{
    Answer, Asked, Error, FileDescriptors, SERVICES, ServerReflectionRequest, ServerReflectionResponse,
    Service, Services,
};
use wasip3::http::types::{ErrorCode, Fields, Request, Response};
use wasip3::wit_bindgen::{StreamResult, spawn_local};
use wasip3::{wit_future, wit_stream};

use crate::grpc::{CONTENT_TYPE, FRAME_HEAD_BYTES, frame};
use crate::problem::Code;

const CHUNK_BYTES: usize = 4 * 1024;
/// Longest question, with its frame.
const QUESTION_BYTES_MAX: usize = 4 * 1024;

/// Whether a path is a call of the reflection service.
pub fn is_reflection(path: &str) -> bool {
    let service = path.strip_prefix('/').and_then(|path| path.strip_suffix("/ServerReflectionInfo"));
    service.is_some_and(|service| SERVICES.contains(&service))
}

/// Answers about these files until the client has no more questions.
pub fn serve(request: Request, files: &'static [File]) -> Result<Response, ErrorCode> {
    let headers = [("content-type".to_owned(), CONTENT_TYPE.as_bytes().to_vec())];
    let fields = Fields::from_list(&headers).map_err(|_| ErrorCode::InternalError(None))?;
    let (_done, received) = wit_future::new(|| Ok(()));
    let (mut questions, _trailers) = Request::consume_body(request, received);
    let (mut out, answers) = wit_stream::new();
    let (trailers_out, trailers) = wit_future::new(|| Ok(None));
    spawn_local(async move {
        let (mut pending, mut code) = (Vec::new(), Code::Ok);
        'stream: loop {
            let (result, chunk) = questions.read(Vec::with_capacity(CHUNK_BYTES)).await;
            pending.extend_from_slice(&chunk);
            loop {
                match next(&mut pending) {
                    Ok(None) => break,
                    Ok(Some(question)) => {
                        // A client that went away asks no more: the next read says so.
                        let _unsent = out.write_all(frame(&answer(files, question))).await;
                    }
                    Err(()) => {
                        code = Code::InvalidArgument;
                        break 'stream;
                    }
                }
            }
            if matches!(result, StreamResult::Dropped) {
                break;
            }
        }
        drop(out);
        let status = vec![("grpc-status".to_owned(), (code as u8).to_string().into_bytes())];
        let _unsent = trailers_out.write(Ok(Fields::from_list(&status).ok())).await;
    });
    let (response, _sent) = Response::new(fields, Some(answers), trailers);
    Ok(response)
}

/// Takes one whole question from the front of what has come. `Err`: it is none.
fn next(pending: &mut Vec<u8>) -> Result<Option<ServerReflectionRequest>, ()> {
    if pending.len() > QUESTION_BYTES_MAX {
        return Err(());
    }
    let Some((head, rest)) = pending.split_first_chunk::<FRAME_HEAD_BYTES>() else { return Ok(None) };
    let [compressed, length @ ..] = *head;
    let length = usize::try_from(u32::from_be_bytes(length)).map_err(|_| ())?;
    if compressed != 0 || length > QUESTION_BYTES_MAX {
        return Err(());
    }
    let Some(message) = rest.get(..length) else { return Ok(None) };
    let question = ServerReflectionRequest::decode(message).map_err(|_| ())?;
    pending.drain(..FRAME_HEAD_BYTES.saturating_add(length));
    Ok(Some(question))
}

fn answer(files: &[File], question: ServerReflectionRequest) -> ServerReflectionResponse {
    let of_file = |found: Option<&File>| match found {
        Some(file) => {
            Answer::FileDescriptors(FileDescriptors { file_descriptor_proto: vec![file.descriptor.to_vec()] })
        }
        None => Answer::Error(Error {
            error_code: Code::NotFound as i32,
            error_message: "there is no such file or symbol here".to_owned(),
        }),
    };
    let answer = match &question.asked {
        Some(Asked::ListServices(_)) => {
            let names = files.iter().map(|file| Service { name: file.service.to_owned() });
            Answer::Services(Services { service: names.collect() })
        }
        Some(Asked::FileByFilename(path)) => of_file(files.iter().find(|file| file.path == path)),
        Some(Asked::FileContainingSymbol(symbol)) => of_file(files.iter().find(|file| holds(file, symbol))),
        Some(Asked::AllExtensionNumbersOfType(_)) | None => of_file(None),
    };
    let (valid_host, original_request) = (question.host.clone(), Some(question));
    ServerReflectionResponse { valid_host, original_request, answer: Some(answer) }
}

/// Whether a symbol is the file's service, or something of its package.
fn holds(file: &File, symbol: &str) -> bool {
    let rest = symbol.strip_prefix(file.package).and_then(|rest| rest.strip_prefix('.'));
    rest.is_some_and(|name| {
        let first = name.split('.').next().unwrap_or_default();
        // A name is in the descriptor as it is.
        !first.is_empty() && file.descriptor.windows(first.len()).any(|part| part == first.as_bytes())
    })
}
