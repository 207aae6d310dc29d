"""From folders of chest films to the dataset JSON: a U-Net ensemble finds the lungs, then left is told from right."""
