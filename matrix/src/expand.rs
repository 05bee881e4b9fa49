//! [`Matrix`] -> cells: the product of images, suites and axes, less the excludes, plus the includes. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};

use indexmap::{IndexMap, IndexSet};
use serde::Serialize;
use tera::Context;

use crate::{
    Cell, CellId, Dependencies, Digest, Firmware, Guest, Image, InstallFrom, Prepare, Timeouts,
    error::Mistakes,
    guest::GuestSize,
    located::At,
    payload::Payload,
    quantity::Limits,
    script::{self, Script},
    source,
    template::{Template, Templates},
    validate::{Matrix, MatrixImage, Suite},
};

/// Maximum number of cells: at a second each, more of them take a day.
pub(crate) const MAX_CELLS: usize = 100_000;

/// Maximum text of a plan (environments, scripts, lists of files), in bytes.
const MAX_TEXT: usize = 512 << 20;
/// Maximum number of rendered templates: some seconds.
const MAX_RENDERED: usize = 2_000_000;
/// Overhead of a piece of text, in bytes.
const OWN: usize = 100;

/// The templates of the matrix.
pub(crate) struct Compiled {
    /// For every suite, in their order.
    suites: Vec<SuiteTemplates>,
    /// For every image, in their order: the inline script it is prepared with.
    prepares: Vec<Option<Template>>,
}

/// What a matrix expands to.
pub(crate) struct Expanded {
    /// The cells in their order.
    pub(crate) cells: Vec<Cell>,
    /// For every image of the matrix, in its order.
    pub(crate) prepares: Vec<Option<Prepare>>,
    /// The scripts that both point to.
    pub(crate) scripts: BTreeMap<Digest, String>,
}

/// The templates of one suite.
struct SuiteTemplates {
    /// `None`: the script is a file.
    script: Option<Template>,
    env: Vec<(String, Template)>,
}

/// Compiles the templates of every suite and image.
pub(crate) fn compile(matrix: &Matrix, templates: &mut Templates, mistakes: &mut Mistakes) -> Compiled {
    let mut suite = |suite: &Suite| SuiteTemplates {
        script: match &suite.script {
            Script::File(_) => None,
            Script::Inline(text) => templates.compile(text, mistakes),
        },
        env: suite
            .env
            .iter()
            .filter_map(|(name, value)| Some((name.clone(), templates.compile(value, mistakes)?)))
            .collect(),
    };
    let suites = matrix.suites.iter().map(&mut suite).collect();
    let mut prepare = |image: &MatrixImage| match image.prepare.as_ref()?.script.as_ref()? {
        Script::File(_) => None,
        Script::Inline(text) => templates.compile(text, mistakes),
    };
    Compiled { suites, prepares: matrix.images.iter().map(&mut prepare).collect() }
}

/// The number of cells before any rule, or a mistake if there are none or too many. Nothing is expanded yet.
pub(crate) fn check_size(matrix: &Matrix, compiled: &Compiled, mistakes: &mut Mistakes) {
    let lengths = [matrix.images.len(), matrix.suites.len()].into_iter().chain(matrix.axes.values().map(Vec::len));
    let cells = lengths.clone().try_fold(1usize, usize::checked_mul);
    if cells.and_then(|cells| cells.checked_add(matrix.includes.len())).is_none_or(|cells| cells > MAX_CELLS) {
        let names = ["images", "suites"].into_iter().chain(matrix.axes.keys().map(String::as_str));
        let product: Vec<_> = lengths.zip(names).map(|(length, name)| format!("{length} {name}")).collect();
        mistakes.push(
            mistakes
                .at(0..0, format!("the matrix has more than {MAX_CELLS} cells: {}", product.join(" x ")), "this file")
                .with_help("drop an axis or some of its values, or split the matrix into several files"),
        );
    } else if let Some(cells) = cells {
        matrix.excludes.check_size(cells, mistakes);
        compiled.check_size(matrix, cells, mistakes);
    }
}

impl Compiled {
    /// Reports a mistake if there are too many templates for so many cells.
    fn check_size(&self, matrix: &Matrix, cells: usize, mistakes: &mut Mistakes) {
        let of_a_suite = cells / matrix.suites.len().max(1);
        let rendered = |templates: &SuiteTemplates| {
            let templates = templates.script.iter().chain(templates.env.iter().map(|(_, template)| template));
            let times = templates.map(|template| if template.is_per_cell() { of_a_suite } else { matrix.images.len() });
            times.fold(0, usize::saturating_add)
        };
        let rendered = self.suites.iter().map(rendered).fold(0, usize::saturating_add);
        if rendered > MAX_RENDERED {
            let message = format!("{cells} cells take {rendered} renderings of templates, the limit is {MAX_RENDERED}");
            let help = "drop an axis or some of its values, or environment variables that hold templates";
            mistakes.push(mistakes.at(0..0, message, "this file").with_help(help));
        }
    }
}

/// Expands the matrix. The result is complete only if no mistake was found.
pub(crate) fn expand(
    matrix: &Matrix,
    payload: &Payload,
    compiled: &Compiled,
    templates: &Templates,
    mistakes: &mut Mistakes,
) -> Expanded {
    let mut expansion = Expansion {
        matrix,
        payload,
        compiled,
        templates,
        cells: Vec::new(),
        ids: HashMap::new(),
        scripts: BTreeMap::new(),
        text: 0,
        failed: HashSet::new(),
    };
    let images = matrix.images.iter().enumerate();
    let prepares = images.map(|(index, image)| expansion.prepare(index, image, mistakes)).collect();
    let excludes = matrix.excludes.by_value();
    let mut unmatched: IndexSet<_> = (0..matrix.excludes.spans().count()).collect();
    let mut includes: HashMap<_, Vec<_>> = HashMap::new();
    for rule in &matrix.includes {
        includes.entry((rule.image, rule.suite)).or_default().push(rule);
    }
    for (image_index, image) in matrix.images.iter().enumerate() {
        for (suite_index, suite) in matrix.suites.iter().enumerate() {
            let mut group = expansion.group(image, suite_index, suite, mistakes);
            for_each_choice(&matrix.axes, |choice| {
                if expansion.is_full(mistakes) {
                    return;
                }
                let cell = [&[image_index, suite_index], choice].concat();
                let mut is_excluded = false;
                excludes.each_of(&cell, |number| {
                    unmatched.swap_remove(&number);
                    is_excluded = true;
                });
                if !is_excluded {
                    let values = matrix.axes.values().zip(choice).map(|(values, value)| values[*value].clone());
                    expansion.push(&mut group, values.collect(), None, mistakes);
                }
            });
            for rule in includes.remove(&(image_index, suite_index)).into_iter().flatten() {
                expansion.push(&mut group, rule.axes.clone(), Some(rule.span.clone()), mistakes);
            }
        }
    }
    if expansion.text > MAX_TEXT {
        let message = format!("the plan would hold more than {} MiB of text", MAX_TEXT >> 20);
        let help = "shorten environments and inline scripts, pack the suites' `files` into one, or drop an axis";
        mistakes.push(mistakes.at(0..0, message, "this file").with_help(help));
    }
    for (_, span) in matrix.excludes.spans().enumerate().filter(|(number, _)| unmatched.contains(number)) {
        mistakes.warn(
            mistakes
                .at(span, "this exclude matches no cell", "matches nothing")
                .with_help("compare its values with the lists of the axes, or remove it"),
        );
    }
    if expansion.cells.is_empty() && expansion.failed.is_empty() {
        let span = matrix.excludes.spans().next().unwrap_or(0..0);
        let help = "remove or narrow an exclude, so that something is left to run";
        mistakes
            .push(mistakes.at(span, "the matrix has no cells: every one is excluded", "an exclude").with_help(help));
    }
    Expanded { cells: expansion.cells, prepares, scripts: expansion.scripts }
}

/// Calls with one index per axis, for every choice of values, the last axis changing fastest.
fn for_each_choice(axes: &IndexMap<String, Vec<String>>, mut call: impl FnMut(&[usize])) {
    if axes.values().any(Vec::is_empty) {
        return;
    }
    let lengths: Vec<_> = axes.values().map(Vec::len).collect();
    let mut choice = vec![0; lengths.len()];
    loop {
        call(&choice);
        let Some(axis) = (0..choice.len()).rev().find(|axis| choice[*axis] + 1 < lengths[*axis]) else { return };
        choice[axis] += 1;
        choice[axis + 1..].fill(0);
    }
}

struct Expansion<'a> {
    matrix: &'a Matrix,
    payload: &'a Payload,
    compiled: &'a Compiled,
    templates: &'a Templates,
    cells: Vec<Cell>,
    /// Position in `cells`.
    ids: HashMap<CellId, usize>,
    scripts: BTreeMap<Digest, String>,
    /// Bytes of text so far.
    text: usize,
    /// Templates that could not be rendered: reported once, not for every cell.
    failed: HashSet<usize>,
}

/// What a template is about.
#[derive(Clone, Copy)]
enum Scope {
    /// An image, before any cell.
    Prepare,
    /// A cell.
    Cell,
}

/// What the cells of one image and suite share.
struct Group<'a> {
    image: &'a Image,
    suite: &'a Suite,
    suite_index: usize,
    guest: Guest,
    /// Where its firmware stands in the file, until it has been checked.
    firmware: Option<&'a At<Firmware>>,
    install_from: InstallFrom,
    dependencies: Dependencies,
    timeouts: Timeouts,
    context: Context,
    /// Rendered for the whole group; `None` where the axes decide.
    script: Option<Digest>,
    env: Vec<Option<String>>,
}

impl<'a> Expansion<'a> {
    /// What is done to an image's guests. It depends on no cell: it runs once for all of them.
    fn prepare(&mut self, index: usize, image: &MatrixImage, mistakes: &mut Mistakes) -> Option<Prepare> {
        let prepare = image.prepare.as_ref()?;
        let script = match &self.compiled.prepares[index] {
            None => self.payload.prepares[index].clone().map(|text| self.add_script(text)),
            Some(template) => {
                let context = context(self.matrix, &image.image, None);
                self.render_script(template, &context, Scope::Prepare, mistakes)
            }
        };
        Some(Prepare {
            script,
            script_origin: prepare.script.as_ref().map(Script::origin),
            packages: prepare.packages.clone(),
            network: prepare.network,
            timeout: prepare.timeout,
        })
    }

    fn group(
        &mut self,
        image: &'a MatrixImage,
        suite_index: usize,
        suite: &'a Suite,
        mistakes: &mut Mistakes,
    ) -> Group<'a> {
        let context = context(self.matrix, &image.image, Some(suite));
        let templates = &self.compiled.suites[suite_index];
        let script = match &templates.script {
            None => self.payload.suites[suite_index].script.clone().map(|text| self.add_script(text)),
            Some(template) if template.is_per_cell() => None,
            Some(template) => self.render_script(template, &context, Scope::Cell, mistakes),
        };
        let env = templates
            .env
            .iter()
            .map(
                |(_, value)| {
                    if value.is_per_cell() { None } else { self.render(value, &context, Scope::Cell, mistakes) }
                },
            )
            .collect();
        let package = self.matrix.package.as_ref();
        let install = package.and_then(|package| package.install);
        let package = package.and_then(|package| package.dependencies);
        let tables = [&suite.guest, &image.guest, &self.matrix.guest];
        Group {
            image: &image.image,
            suite,
            suite_index,
            guest: GuestSize::resolve(tables),
            firmware: GuestSize::firmware(tables),
            install_from: suite.install_from.or(image.install).or(install).unwrap_or_default(),
            dependencies: suite.dependencies.or(image.dependencies).or(package).unwrap_or_default(),
            timeouts: Limits::resolve(&suite.limits, &self.matrix.limits),
            context,
            script,
            env,
        }
    }

    /// Drops text beyond the limit of a plan (reported at the end), and cells whose mistakes would not be reported.
    fn is_full(&self, mistakes: &Mistakes) -> bool {
        self.text > MAX_TEXT || mistakes.is_full()
    }

    /// Adds one cell; `include`: the place of its `[[include]]`, if it has one.
    fn push(
        &mut self,
        group: &mut Group<'a>,
        values: Vec<String>,
        include: Option<std::ops::Range<usize>>,
        mistakes: &mut Mistakes,
    ) {
        if self.is_full(mistakes) {
            return;
        }
        let axes: IndexMap<String, String> = self.matrix.axes.keys().cloned().zip(values).collect();
        let (image, suite) = (group.image, group.suite);
        // Reported once, and only for cells that are not left out.
        if let Some(firmware) = group.firmware.take() {
            source::check_firmware(image, firmware, mistakes);
        }
        let pairs = axes.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let id = CellId::new(&image.name, suite.name.text(), pairs);
        if let Some(index) = self.ids.get(&id) {
            let first = &self.cells[*index];
            let same = first.image == image.name && first.suite == suite.name.text() && first.axes == axes;
            match include {
                Some(span) if same => mistakes.warn(
                    mistakes
                        .at(span, format!("the cell {id} exists already"), "adds nothing")
                        .with_help("remove this include"),
                ),
                _ => {
                    let message = format!("two cells would be named {id}");
                    let span = include.unwrap_or_else(|| suite.name.span());
                    let help = "rename this suite: names of cells are the names of image and suite joined by a dot";
                    mistakes.push(mistakes.at(span, message, "named the same").with_help(help));
                }
            }
            return;
        }
        let templates = &self.compiled.suites[group.suite_index];
        if group.script.is_none() || group.env.iter().any(Option::is_none) {
            group.context.insert("axes", &axes);
        }
        let script = match (group.script, &templates.script) {
            (None, Some(template)) => self.render_script(template, &group.context, Scope::Cell, mistakes),
            (script, _) => script,
        };
        let mut env = own_env(self.matrix, &id, image, suite, &axes);
        for ((name, template), rendered) in templates.env.iter().zip(&group.env) {
            let value = rendered.clone().or_else(|| self.render(template, &group.context, Scope::Cell, mistakes));
            env.insert(name.clone(), value.unwrap_or_default());
        }
        let files = &self.payload.suites[group.suite_index].files;
        let texts = env.iter().chain(&axes).map(|(name, value)| name.len() + value.len());
        let texts = texts.chain(suite.options.artifacts.iter().map(String::len));
        let files_text = files.iter().map(|file| file.relative.len() + file.path.as_os_str().len());
        self.text += texts.chain(files_text).map(|length| length + OWN).sum::<usize>();
        let Some(script) = script else { return };
        self.ids.insert(id.clone(), self.cells.len());
        self.cells.push(Cell {
            id,
            image: image.name.clone(),
            suite: suite.name.text().to_owned(),
            axes,
            guest: group.guest.clone(),
            install_from: group.install_from,
            dependencies: group.dependencies,
            timeouts: group.timeouts.clone(),
            script,
            script_origin: suite.script.origin(),
            env,
            files: files.clone(),
            options: suite.options.clone(),
        });
    }

    fn render(
        &mut self,
        template: &Template,
        context: &Context,
        scope: Scope,
        mistakes: &mut Mistakes,
    ) -> Option<String> {
        if self.failed.contains(&template.span().start) {
            return None;
        }
        let problem = match self.templates.render(template, context, mistakes) {
            Ok(text) if text.contains('\0') => {
                mistakes.at(template.span(), "template: a NUL character", "yields NUL").with_help("remove it")
            }
            Ok(text) => return Some(text),
            Err(problem) => problem.with_help(self.template_help(scope)),
        };
        self.failed.insert(template.span().start);
        mistakes.push(problem);
        None
    }

    fn render_script(
        &mut self,
        template: &Template,
        context: &Context,
        scope: Scope,
        mistakes: &mut Mistakes,
    ) -> Option<Digest> {
        let text = self.render(template, context, scope, mistakes)?;
        match script::check(text.into_bytes()) {
            Ok(text) => Some(self.add_script(text)),
            Err((what, help)) => {
                self.failed.insert(template.span().start);
                let message = format!("the inline script {what}");
                mistakes.push(mistakes.at(template.span(), message, "this script").with_help(help));
                None
            }
        }
    }

    fn add_script(&mut self, text: String) -> Digest {
        let digest = Digest::of(text.as_bytes());
        self.scripts.entry(digest).or_insert_with(|| {
            self.text += text.len();
            text
        });
        digest
    }

    fn template_help(&self, scope: Scope) -> String {
        let mut names = Vec::new();
        if let Some(package) = &self.matrix.package {
            names.push("package.name".to_owned());
            names.extend(package.version.is_some().then(|| "package.version".to_owned()));
        }
        names.extend(["image.name", "image.from"].map(str::to_owned));
        match scope {
            Scope::Prepare => format!("`prepare` runs once for all cells of an image: it can use {}", names.join(", ")),
            Scope::Cell => {
                names.push("suite.name".to_owned());
                names.extend(self.matrix.axes.keys().map(|axis| format!("axes.{axis}")));
                format!("a template of this matrix can use {}", names.join(", "))
            }
        }
    }
}

/// The environment that every script of a cell gets besides its suite's own.
fn own_env(
    matrix: &Matrix,
    id: &CellId,
    image: &Image,
    suite: &Suite,
    axes: &IndexMap<String, String>,
) -> IndexMap<String, String> {
    let mut env = IndexMap::new();
    let mut set = |name: &str, value: &str| env.insert(format!("NESTMATRIX_{name}"), value.to_owned());
    set("CELL", id.as_str());
    set("IMAGE", &image.name);
    set("SUITE", suite.name.text());
    if let Some(package) = &matrix.package {
        set("PACKAGE_NAME", package.name.text());
        if let Some(version) = &package.version {
            set("PACKAGE_VERSION", version.text());
        }
    }
    for (name, value) in axes {
        set(&format!("AXIS_{}", name.to_ascii_uppercase()), value);
    }
    env
}

/// What templates see, except for the axes. An unknown version is undefined, so using it is an error.
fn context(matrix: &Matrix, image: &Image, suite: Option<&Suite>) -> Context {
    #[derive(Serialize)]
    struct PackageView<'a> {
        name: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        version: Option<&'a str>,
    }
    let mut context = Context::new();
    if let Some(package) = &matrix.package {
        let version = package.version.as_ref().map(|version| version.text());
        context.insert("package", &PackageView { name: package.name.text(), version });
    }
    context.insert("image", &BTreeMap::from([("name", &image.name), ("from", &image.from)]));
    if let Some(suite) = suite {
        context.insert("suite", &BTreeMap::from([("name", suite.name.text())]));
    }
    context
}
