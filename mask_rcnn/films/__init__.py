"""One film: reading raster and DICOM files, upright and with white bones; finding films, and copies of a film."""
