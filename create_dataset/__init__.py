"""From folders of chest films to the dataset JSON: a U-Net ensemble finds the lungs, then left and right are told apart."""
