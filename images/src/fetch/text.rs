//! Small texts: the checksum files of publishers.

use reqwest::Url;

use super::{
    answer::{self, Answer},
    client::Request,
    page,
    trouble::Trouble,
    watch::{Answering, Body, Stop, Watch},
};

/// Requests the whole text.
pub(super) fn transfer(url: &Url, most: u64, watch: &Watch<'_>) -> Result<String, Stop> {
    let request = Request { url: url.clone(), offset: 0, validator: None };
    let (head, mut answering) = Answering::to(request, watch)?;
    let total = match answer::judge(&head, 0, None) {
        Ok(Answer::Whole { total }) => total,
        Ok(_) => None,
        Err(trouble) => return Err(answering.refusal(&head, trouble)),
    };
    if total.is_some_and(|total| total > most) {
        return Err(Trouble::TooLarge { most }.into());
    }
    let mut bytes = Vec::new();
    loop {
        let received = bytes.len() as u64;
        match answering.next(received)? {
            Body::Chunk(chunk) => bytes.extend(chunk),
            Body::Nothing => {}
            Body::Broken(reason) => return Err(Trouble::BrokeOff { received, total, reason }.into()),
            Body::End => break,
        }
        if bytes.len() as u64 > most {
            return Err(Trouble::TooLarge { most }.into());
        }
    }
    if bytes.is_empty() {
        return Err(Trouble::Empty.into());
    }
    // A list of checksums does not begin like a page; its content type does not matter.
    if page::is_page(None, &bytes) {
        return Err(Trouble::ErrorPage { line: page::words(&bytes) }.into());
    }
    String::from_utf8(bytes).map_err(|_| Trouble::NotText.into())
}
