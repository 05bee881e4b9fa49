//! The matrix as a table: images down, suites across, axes where they read best.

use crate::run::Run;

/// Maximum number of columns; beyond that the axes move into the rows.
const MAX_COLUMNS: usize = 6;

/// The matrix as a table of indices into [`Run::cells`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grid {
    /// Suite and axes of each column; columns of one suite are neighbours.
    pub(crate) columns: Vec<(String, String)>,
    /// The rows; rows of one image are neighbours.
    pub(crate) rows: Vec<Row>,
}

/// A row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// Name of the image.
    pub(crate) image: String,
    /// Its axes; empty if they are in the columns.
    pub(crate) axes: String,
    /// The cells of each column: usually one, none if excluded.
    pub(crate) cells: Vec<Vec<usize>>,
}

impl Grid {
    /// The table of a run.
    pub(crate) fn new(run: &Run) -> Self {
        let mut columns: Vec<(String, String)> = Vec::new();
        for cell in &run.cells {
            let column = (cell.suite.clone(), cell.axes_label());
            if !columns.contains(&column) {
                columns.push(column);
            }
            if columns.len() > MAX_COLUMNS {
                return Self::with_axes_down(run);
            }
        }
        let suites: Vec<String> = columns.iter().map(|(suite, _)| suite.clone()).collect();
        columns.sort_by_key(|(suite, _)| suites.iter().position(|known| known == suite));
        Self::fill(run, columns, |cell| ((cell.suite.clone(), cell.axes_label()), (cell.image.clone(), String::new())))
    }

    fn with_axes_down(run: &Run) -> Self {
        let mut suites: Vec<(String, String)> = Vec::new();
        for cell in &run.cells {
            if !suites.iter().any(|(suite, _)| *suite == cell.suite) {
                suites.push((cell.suite.clone(), String::new()));
            }
        }
        Self::fill(run, suites, |cell| ((cell.suite.clone(), String::new()), (cell.image.clone(), cell.axes_label())))
    }

    fn fill(
        run: &Run,
        columns: Vec<(String, String)>,
        place: impl Fn(&crate::CellRun) -> ((String, String), (String, String)),
    ) -> Self {
        let mut rows = indexmap::IndexMap::<(String, String), Vec<Vec<usize>>>::new();
        for (index, cell) in run.cells.iter().enumerate() {
            let (column, row) = place(cell);
            let row = rows.entry(row).or_insert_with(|| vec![Vec::new(); columns.len()]);
            if let Some(at) = columns.iter().position(|known| *known == column) {
                row[at].push(index);
            }
        }
        let images: Vec<String> = run.images.iter().map(|image| image.name.clone()).collect();
        let mut rows: Vec<Row> = rows.into_iter().map(|((image, axes), cells)| Row { image, axes, cells }).collect();
        rows.sort_by_key(|row| images.iter().position(|image| *image == row.image));
        Self { columns, rows }
    }
}
